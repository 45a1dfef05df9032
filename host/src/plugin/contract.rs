//! The contract as the host checks it: names and version of `wit/`, which functions a component may export with which
//! types, which interfaces it may import. Looks at types only; runs nothing.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{self, ComponentFunc, ComponentItem, Type};

use super::typed::{BatchAnswer, BatchInfo, FrameOut, FrameRef, Message, MessageAnswer, TickAnswer};
use super::verdicts::{FailedMessage, RevokeReason, Verdict};
use super::{http, wasi};

/// Package of `wit/`.
const PACKAGE: &str = "sluicebox:plugin";
/// Its version. Within 0.1 a component built for an older or newer patch is understood.
const VERSION: &str = "0.1.0";
/// The versions of WASI whose harmless part is linked: all of 0.2.
const WASI: (&str, &str) = ("wasi", "0.2.0");
/// Interfaces of ours that a component may import.
const IMPORTS: [&str; 5] = ["types", "log", "settings", "outputs", "metrics"];

/// Interface, one of its functions, its type as `wit/` writes it, and the check of the real type.
struct Export {
    interface: &'static str,
    function: &'static str,
    wit: &'static str,
    check: fn(&ComponentFunc, &types::Component) -> wasmtime::Result<()>,
}

const EXPORTS: [Export; 11] = [
    Export {
        interface: "message-frames",
        function: "handle-messages",
        wit: "func(burst: frame) -> frame",
        check: |function, ty| function.typecheck::<(FrameRef<'_>,), (FrameOut,)>(&ty.instance_type()),
    },
    Export {
        interface: "message-handler",
        function: "handle-message",
        wit: "func(message: message) -> message-answer",
        check: |function, ty| function.typecheck::<(Message<'_>,), (MessageAnswer,)>(&ty.instance_type()),
    },
    Export {
        interface: "batch-frames",
        function: "handle-batch",
        wit: "func(batch: frame) -> result<frame, string>",
        check: |function, ty| function.typecheck::<(FrameRef<'_>,), (Result<FrameOut, String>,)>(&ty.instance_type()),
    },
    Export {
        interface: "batch-handler",
        function: "handle-batch",
        wit: "func(info: batch-info, messages: list<message>) -> result<batch-answer, string>",
        check: |function, ty| {
            function.typecheck::<(BatchInfo<'_>, Vec<Message<'_>>), (Result<BatchAnswer, String>,)>(&ty.instance_type())
        },
    },
    Export {
        interface: "lifecycle",
        function: "init",
        wit: "func(settings: string) -> result<_, string>",
        check: |function, ty| function.typecheck::<(&str,), (Result<(), String>,)>(&ty.instance_type()),
    },
    Export {
        interface: "timer",
        function: "tick",
        wit: "func(now: s64) -> tick-answer",
        check: |function, ty| function.typecheck::<(i64,), (TickAnswer,)>(&ty.instance_type()),
    },
    Export {
        interface: "partitions",
        function: "partition-assigned",
        wit: "func(topic: string, partition: u32, next-offset: option<s64>) -> tick-answer",
        check: |function, ty| function.typecheck::<(&str, u32, Option<i64>), (TickAnswer,)>(&ty.instance_type()),
    },
    Export {
        interface: "partitions",
        function: "partition-revoked",
        wit: "func(topic: string, partition: u32, reason: revoke-reason) -> tick-answer",
        check: |function, ty| function.typecheck::<(&str, u32, RevokeReason), (TickAnswer,)>(&ty.instance_type()),
    },
    Export {
        interface: "failures",
        function: "handle-failed",
        wit: "func(failed: list<failed-message>) -> list<verdict>",
        check: |function, ty| function.typecheck::<(Vec<FailedMessage<'_>>,), (Vec<Verdict>,)>(&ty.instance_type()),
    },
    Export {
        interface: "state",
        function: "snapshot",
        wit: "func() -> list<u8>",
        check: |function, ty| function.typecheck::<(), (Vec<u8>,)>(&ty.instance_type()),
    },
    Export {
        interface: "state",
        function: "restore",
        wit: "func(state: list<u8>, from-version: string) -> result<_, string>",
        check: |function, ty| function.typecheck::<(&[u8], &str), (Result<(), String>,)>(&ty.instance_type()),
    },
];

impl Export {
    /// Where the function of this exported interface departs from the contract.
    fn problem(
        &self,
        engine: &Engine,
        ty: &types::Component,
        full: &str,
        instance: &types::ComponentInstance,
    ) -> Option<String> {
        let Some(ComponentItem::ComponentFunc(function)) =
            instance.get_export(engine, self.function).map(|function| function.ty)
        else {
            return Some(format!("its export {full} lacks the function {}", self.function));
        };
        if let Err(error) = (self.check)(&function, ty) {
            return Some(format!(
                "{full}, {}: expected {} of {}, found {}: {error:#}",
                self.function,
                self.wit,
                package(),
                show_function(&function)
            ));
        }
        function.async_().then(|| format!("{full}, {}: it is async, handlers are not", self.function))
    }
}

/// Name of an interface of ours, as components import and export it.
pub(super) fn full_name(interface: &str) -> String {
    format!("{PACKAGE}/{interface}@{VERSION}")
}

/// `sluicebox:plugin@0.1.0`
pub(super) fn package() -> String {
    format!("{PACKAGE}@{VERSION}")
}

/// What a look at a component's type showed.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Where it departs from the contract, each a sentence.
    pub problems: Vec<String>,
    /// Versions of our package that it speaks, other than ours.
    pub versions: Vec<String>,
    /// Full names of all that it imports.
    pub imports: Vec<String>,
    /// Imports that are granted to nobody.
    pub not_granted: Vec<String>,
    /// Full names of the interfaces it exports, by their name in the contract.
    pub exports: Vec<(&'static str, String)>,
}

impl Survey {
    /// The full name under which an interface is exported.
    pub(super) fn export(&self, interface: &str) -> Option<&str> {
        self.exports.iter().find(|(name, _)| *name == interface).map(|(_, full)| full.as_str())
    }
}

/// Compares a component's imports and exports with the contract, and with what it was granted. All departures, not just the
/// first.
pub(super) fn survey(engine: &Engine, component: &Component, http: bool) -> Survey {
    let mut survey = Survey::default();
    let ty = component.component_type();
    for (name, _) in ty.imports(engine) {
        survey.import(name, http);
    }
    for (name, item) in ty.exports(engine) {
        survey.look_at_export(engine, &ty, name, &item.ty);
    }
    let handles = |(name, _): &(&str, String)| name.starts_with("message-") || name.starts_with("batch-");
    if survey.problems.is_empty() && !survey.exports.iter().any(handles) {
        let found: Vec<_> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        survey.problems.push(format!(
            "it handles neither messages nor batches: one of message-frames, message-handler, batch-frames and \
             batch-handler of {} has to be exported, it exports {found}",
            package()
        ));
    }
    survey
}

impl Survey {
    /// Package and version of the contract that it speaks, as far as it names one.
    pub(super) fn world(&self) -> String {
        let names = self.exports.iter().map(|(_, full)| full).chain(&self.imports);
        let version = names.map(|full| Name::parse(full)).filter(|name| name.package == PACKAGE);
        let version = version.filter_map(|name| name.version).max().unwrap_or(VERSION);
        format!("{PACKAGE}@{version}")
    }

    fn import(&mut self, full: &str, http: bool) {
        self.imports.push(full.to_owned());
        let name = Name::parse(full);
        if name.package == PACKAGE {
            if !name.compatible(VERSION) {
                self.other_version(&name, "imports");
            } else if !IMPORTS.contains(&name.interface) {
                self.problems.push(format!("it imports {full}, which {} does not have", package()));
            }
            return;
        }
        let linked = name.package.split(':').next() == Some(WASI.0)
            && name.compatible(WASI.1)
            && (wasi::LINKED.contains(&(name.package, name.interface))
                || (http && http::LINKED.contains(&(name.package, name.interface))));
        if !linked {
            self.not_granted.push(full.to_owned());
        }
    }

    fn look_at_export(&mut self, engine: &Engine, ty: &types::Component, full: &str, item: &ComponentItem) {
        let name = Name::parse(full);
        // Other exports (`init` of interpreters, `wasi:cli/run`) are nobody's business.
        if name.package != PACKAGE {
            return;
        }
        if !name.compatible(VERSION) {
            return self.other_version(&name, "exports");
        }
        let mut functions = EXPORTS.iter().filter(|export| export.interface == name.interface).peekable();
        let Some(interface) = functions.peek().map(|export| export.interface) else {
            // Types may be exported along; they run nothing.
            if name.interface != "types" {
                self.problems.push(format!("it exports {full}, which {} does not have", package()));
            }
            return;
        };
        let ComponentItem::ComponentInstance(instance) = item else {
            self.problems.push(format!("its export {full} is no interface"));
            return;
        };
        let problems: Vec<_> = functions.filter_map(|export| export.problem(engine, ty, full, instance)).collect();
        if problems.is_empty() {
            self.exports.push((interface, full.to_owned()));
        }
        self.problems.extend(problems);
    }

    fn other_version(&mut self, name: &Name<'_>, verb: &str) {
        let Some(version) = name.version else {
            let interface = name.interface;
            self.problems
                .push(format!("it {verb} {interface} of {PACKAGE} without a version, this host speaks {}", package()));
            return;
        };
        self.problems.push(format!(
            "it {verb} {} of {PACKAGE}@{version}, this host speaks {}",
            name.interface,
            package()
        ));
        if !self.versions.iter().any(|known| known == version) {
            self.versions.push(version.to_owned());
        }
    }
}

/// `package:name/interface@version`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    package: &'a str,
    interface: &'a str,
    version: Option<&'a str>,
}

impl<'a> Name<'a> {
    fn parse(full: &'a str) -> Self {
        let (name, version) = full.split_once('@').map_or((full, None), |(name, version)| (name, Some(version)));
        let (package, interface) = name.split_once('/').unwrap_or(("", name));
        Self { package, interface, version }
    }

    /// As the linker decides: the same major version, below 1.0 the same minor; a pre-release only itself.
    fn compatible(&self, with: &str) -> bool {
        let Some(version) = self.version else { return false };
        let line = |version: &str| {
            let mut parts = version.splitn(3, '.').map(|part| part.parse::<u64>().ok());
            let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
            Some(if major > 0 {
                (major, 0, 0)
            } else if minor > 0 {
                (0, minor, 0)
            } else {
                (0, 0, patch)
            })
        };
        version == with || (line(version).is_some() && line(version) == line(with))
    }
}

/// A function's type in the notation of WIT, for an error text.
fn show_function(function: &ComponentFunc) -> String {
    let params: Vec<_> = function.params().map(|(name, ty)| format!("{name}: {}", show(&ty, 0))).collect();
    let results: Vec<_> = function.results().map(|ty| show(&ty, 0)).collect();
    let results = if results.is_empty() { String::new() } else { format!(" -> {}", results.join(", ")) };
    format!("func({}){results}", params.join(", "))
}

/// Deep types end in dots: the reason beside it names the place.
fn show(ty: &Type, depth: usize) -> String {
    const DEEP: usize = 3;
    let inner = |ty: &Type| show(ty, depth + 1);
    let fields = |word: &str, fields: Vec<String>| {
        if depth >= DEEP { format!("{word} {{…}}") } else { format!("{word} {{ {} }}", fields.join(", ")) }
    };
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::S8 => "s8".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::S16 => "s16".to_owned(),
        Type::U16 => "u16".to_owned(),
        Type::S32 => "s32".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::S64 => "s64".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::Float32 => "f32".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Char => "char".to_owned(),
        Type::String => "string".to_owned(),
        Type::List(list) => format!("list<{}>", inner(&list.ty())),
        Type::Option(option) => format!("option<{}>", inner(&option.ty())),
        Type::Record(record) => {
            fields("record", record.fields().map(|field| format!("{}: {}", field.name, inner(&field.ty))).collect())
        }
        Type::Tuple(tuple) => {
            let types: Vec<_> = tuple.types().map(|ty| inner(&ty)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        Type::Variant(variant) => {
            let case = |case: wasmtime::component::types::Case<'_>| match case.ty {
                Some(ty) => format!("{}({})", case.name, inner(&ty)),
                None => case.name.to_owned(),
            };
            fields("variant", variant.cases().map(case).collect())
        }
        Type::Enum(names) => fields("enum", names.names().map(str::to_owned).collect()),
        Type::Flags(names) => fields("flags", names.names().map(str::to_owned).collect()),
        Type::Result(result) => {
            let side = |ty: Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| inner(&ty));
            format!("result<{}, {}>", side(result.ok()), side(result.err()))
        }
        _ => "a type that the contract does not use".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = Name::parse("sluicebox:plugin/message-frames@0.1.0");
        assert_eq!(name, Name { package: "sluicebox:plugin", interface: "message-frames", version: Some("0.1.0") });
        assert_eq!(Name::parse("init"), Name { package: "", interface: "init", version: None });
    }

    #[test]
    fn versions_are_compatible_as_the_linker_says() {
        for (version, with, compatible) in [
            ("0.1.0", "0.1.0", true),
            ("0.1.7", "0.1.0", true),
            ("0.2.0", "0.1.0", false),
            ("0.2.12", "0.2.0", true),
            ("0.3.0", "0.2.0", false),
            ("1.0.0", "0.1.0", false),
            ("1.4.0", "1.0.0", true),
            ("0.1.0-rc.1", "0.1.0", false),
            ("0.1", "0.1.0", false),
            ("", "0.1.0", false),
        ] {
            let full = format!("a:b/c@{version}");
            assert_eq!(Name::parse(&full).compatible(with), compatible, "{version} with {with}");
        }
        assert!(!Name::parse("a:b/c").compatible("0.1.0"));
    }
}
