//! Components by program: whatever a program says, the component is well-formed as far as names and types of the component
//! model go that can be said at random, so that what looks at imports, exports and types gets to see it.

use std::collections::BTreeSet;

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, CodeSection, Component, ComponentAliasSection,
    ComponentDefinedTypeEncoder, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentTypeRef, ComponentTypeSection, ComponentValType, ExportKind, ExportSection,
    FunctionSection, InstanceSection, InstanceType, Instruction, MemorySection, MemoryType, Module, ModuleArg,
    ModuleSection, PrimitiveValType, TypeSection, ValType,
};

/// Interfaces with a place for the version.
const INTERFACES: [&str; 16] = [
    "sluicebox:plugin/message-frames",
    "sluicebox:plugin/message-handler",
    "sluicebox:plugin/batch-frames",
    "sluicebox:plugin/batch-handler",
    "sluicebox:plugin/lifecycle",
    "sluicebox:plugin/timer",
    "sluicebox:plugin/partitions",
    "sluicebox:plugin/failures",
    "sluicebox:plugin/state",
    "sluicebox:plugin/types",
    "sluicebox:plugin/log",
    "sluicebox:plugin/nothing",
    "wasi:http/types",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/types",
    "somebody:elses/handler",
];
const VERSIONS: [&str; 8] = ["@0.1.0", "@0.1.0", "@0.1.9", "@0.2.0", "@0.2.6", "@1.0.0", "@0.1.0-rc.1", ""];
/// The contract's, in the order of its interfaces.
const FUNCTIONS: [&str; 12] = [
    "handle-messages",
    "handle-message",
    "handle-batch",
    "init",
    "tick",
    "partition-assigned",
    "partition-revoked",
    "handle-failed",
    "snapshot",
    "restore",
    "other",
    "more",
];
const NAMES: [&str; 12] =
    ["topic", "key", "value", "emit", "ack", "reject", "flush-batches", "at", "outcomes", "errors", "now", "a"];
/// Types lie so deep in each other.
const DEEP: u32 = 6;

/// The program; zeros after its end.
struct Program<'a>(std::slice::Iter<'a, u8>);

impl Program<'_> {
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Up to three different names.
    fn names(&mut self) -> Vec<&'static str> {
        let (first, count) = (self.below(NAMES.len()), 1 + self.below(3));
        (0..count).map(|next| NAMES[(first + next) % NAMES.len()]).collect()
    }
}

/// What a type is to core code, piece by piece; and what it is to components.
struct Ty {
    is: ComponentValType,
    flat: Vec<ValType>,
}

/// The component that a program says.
pub fn component(program: &[u8]) -> Vec<u8> {
    let mut program = Program(program.iter());
    let mut says = Says::default();
    // A name twice is refused before anybody looks at the rest.
    let imports: BTreeSet<_> = (0..program.below(3)).map(|_| interface(&mut program)).collect();
    for interface in &imports {
        says.import(&mut program, interface);
    }
    let exports: BTreeSet<_> = (0..=program.below(3)).map(|_| interface(&mut program)).collect();
    let exports: Vec<_> = exports
        .into_iter()
        .map(|interface| {
            let names: BTreeSet<_> = (0..=program.below(2)).map(|_| program.pick(&FUNCTIONS)).collect();
            (interface, names.into_iter().map(|name| says.function(&mut program, name)).collect())
        })
        .collect();
    says.finish(&exports)
}

fn interface(program: &mut Program<'_>) -> String {
    format!("{}{}", program.pick(&INTERFACES), program.pick(&VERSIONS))
}

/// Name, type, and place in the core module.
type Function = (&'static str, u32, u32);

/// A component while it is said.
#[derive(Default)]
struct Says {
    component: Component,
    /// Types and instances so far, those that got a name counted twice.
    types: u32,
    instances: u32,
    /// Core functions, by their parameters and results.
    functions: Vec<(Vec<ValType>, Vec<ValType>)>,
}

impl Says {
    /// An interface with a function that it needs.
    fn import(&mut self, program: &mut Program<'_>, interface: &str) {
        let mut instance = InstanceType::new();
        instance.ty().function().params([("a", PrimitiveValType::S64)]).result(None);
        instance.export(program.pick(&FUNCTIONS), ComponentTypeRef::Func(0));
        let ty = self.say(|types| _ = types.instance(&instance));
        let mut imports = ComponentImportSection::new();
        imports.import(interface, ComponentTypeRef::Instance(ty));
        self.component.section(&imports);
        self.instances += 1;
    }

    /// One function more, with its types before it.
    fn function(&mut self, program: &mut Program<'_>, name: &'static str) -> Function {
        let names = if program.below(4) == 0 { Vec::new() } else { program.names() };
        let params: Vec<_> = names.into_iter().map(|name| (name, self.ty(program, 0))).collect();
        let result = (program.below(4) != 0).then(|| self.ty(program, 0));
        let asynchronous = program.below(16) == 15;
        let ty = self.say(|types| {
            let mut function = types.function();
            function.async_(asynchronous).params(params.iter().map(|(name, ty)| (*name, ty.is)));
            function.result(result.as_ref().map(|ty| ty.is));
        });
        // As the canonical ABI has it: what does not fit lies in memory.
        let flat: Vec<_> = params.into_iter().flat_map(|(_, ty)| ty.flat).collect();
        let given = result.map_or(Vec::new(), |ty| ty.flat);
        let fits = |flat: Vec<ValType>, most| if flat.len() > most { vec![ValType::I32] } else { flat };
        self.functions.push((fits(flat, 16), fits(given, 1)));
        (name, ty, self.functions.len() as u32 - 1)
    }

    /// A type, with those that it is made of before it. Those that need a name get one of their own.
    fn ty(&mut self, program: &mut Program<'_>, depth: u32) -> Ty {
        use PrimitiveValType::{Bool, Char, F32, F64, S8, S16, S32, S64, String, U8, U16, U32, U64};
        let kind = program.below(if depth < DEEP { 32 } else { 16 });
        let inner = |says: &mut Self, program: &mut Program<'_>| says.ty(program, depth + 1);
        match kind {
            0..16 => {
                const PLAIN: [PrimitiveValType; 16] =
                    [String, U8, Bool, S8, S16, U16, S32, U32, S64, U64, F32, F64, Char, String, S64, U32];
                let flat = match PLAIN[kind] {
                    String => vec![ValType::I32; 2],
                    S64 | U64 => vec![ValType::I64],
                    F32 => vec![ValType::F32],
                    F64 => vec![ValType::F64],
                    _ => vec![ValType::I32],
                };
                Ty { is: ComponentValType::Primitive(PLAIN[kind]), flat }
            }
            16..20 => {
                let of = inner(self, program);
                self.plain(vec![ValType::I32; 2], |encoder| encoder.list(of.is))
            }
            20..22 => {
                let of = inner(self, program);
                self.plain(one_of([&of.flat]), |encoder| encoder.option(of.is))
            }
            22 | 23 => {
                let [ok, err] = [0; 2].map(|_| (program.below(3) != 0).then(|| inner(self, program)));
                let flat = one_of([&ok, &err].map(|side| side.as_ref().map_or(&[][..], |side| &side.flat)));
                self.plain(flat, |encoder| encoder.result(ok.map(|ty| ty.is), err.map(|ty| ty.is)))
            }
            24 => {
                let of: Vec<_> = (0..=program.below(3)).map(|_| inner(self, program)).collect();
                self.plain(all_of(&of), |encoder| encoder.tuple(of.iter().map(|ty| ty.is)))
            }
            25 | 26 => {
                let names = program.names();
                let of: Vec<_> = names.iter().map(|_| inner(self, program)).collect();
                let fields = names.into_iter().zip(of.iter().map(|ty| ty.is));
                self.named(all_of(&of), |encoder| encoder.record(fields))
            }
            27 | 28 => {
                let names = program.names();
                let mut case = || (program.below(2) == 1).then(|| inner(self, program));
                let of: Vec<_> = names.iter().map(|_| case()).collect();
                let flat = one_of(of.iter().map(|case| case.as_ref().map_or(&[][..], |ty| &ty.flat)));
                let cases = names.into_iter().zip(of.iter().map(|case| case.as_ref().map(|ty| ty.is)));
                self.named(flat, |encoder| encoder.variant(cases))
            }
            29 => self.named(vec![ValType::I32], |encoder| encoder.enum_type(program.names())),
            _ => self.named(vec![ValType::I32], |encoder| encoder.flags(program.names())),
        }
    }

    fn plain(&mut self, flat: Vec<ValType>, say: impl FnOnce(ComponentDefinedTypeEncoder<'_>)) -> Ty {
        let is = self.say(|types| say(types.defined_type()));
        Ty { is: ComponentValType::Type(is), flat }
    }

    fn named(&mut self, flat: Vec<ValType>, say: impl FnOnce(ComponentDefinedTypeEncoder<'_>)) -> Ty {
        let unnamed = self.say(|types| say(types.defined_type()));
        let mut exports = ComponentExportSection::new();
        exports.export(format!("t{unnamed}").as_str(), ComponentExportKind::Type, unnamed, None);
        self.component.section(&exports);
        self.types += 1;
        Ty { is: ComponentValType::Type(unnamed + 1), flat }
    }

    fn say(&mut self, say: impl FnOnce(&mut ComponentTypeSection)) -> u32 {
        let mut types = ComponentTypeSection::new();
        say(&mut types);
        self.component.section(&types);
        self.types += 1;
        self.types - 1
    }

    /// Adds the code – every function traps –, and exports the functions.
    fn finish(mut self, exports: &[(String, Vec<Function>)]) -> Vec<u8> {
        self.component.section(&ModuleSection(&code(&self.functions)));
        let mut core = InstanceSection::new();
        core.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
        self.component.section(&core);
        let mut aliases = ComponentAliasSection::new();
        let names = (0..self.functions.len()).map(|number| number.to_string());
        for name in names.chain(["realloc".to_owned()]) {
            aliases.alias(Alias::CoreInstanceExport { instance: 0, kind: ExportKind::Func, name: &name });
        }
        aliases.alias(Alias::CoreInstanceExport { instance: 0, kind: ExportKind::Memory, name: "memory" });
        self.component.section(&aliases);
        let options = [CanonicalOption::Memory(0), CanonicalOption::Realloc(self.functions.len() as u32)];
        let mut lifts = CanonicalFunctionSection::new();
        for (_, ty, number) in exports.iter().flat_map(|(_, functions)| functions) {
            lifts.lift(*number, *ty, options);
        }
        self.component.section(&lifts);
        for (interface, functions) in exports {
            let mut instances = ComponentInstanceSection::new();
            instances.export_items(functions.iter().map(|(name, _, at)| (*name, ComponentExportKind::Func, *at)));
            let mut exports = ComponentExportSection::new();
            exports.export(interface.as_str(), ComponentExportKind::Instance, self.instances, None);
            self.component.section(&instances).section(&exports);
            self.instances += 2;
        }
        self.component.finish()
    }
}

fn code(functions: &[(Vec<ValType>, Vec<ValType>)]) -> Module {
    let (mut types, mut declared, mut exports, mut bodies) =
        (TypeSection::new(), FunctionSection::new(), ExportSection::new(), CodeSection::new());
    let realloc = (vec![ValType::I32; 4], vec![ValType::I32]);
    for (number, (params, results)) in (0..).zip(functions.iter().chain([&realloc])) {
        types.ty().function(params.iter().copied(), results.iter().copied());
        declared.function(number);
        let name = if number as usize == functions.len() { "realloc".to_owned() } else { number.to_string() };
        exports.export(&name, ExportKind::Func, number);
        let mut body = wasm_encoder::Function::new([]);
        body.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
        bodies.function(&body);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    exports.export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&memories).section(&exports).section(&bodies);
    module
}

/// One after the other.
fn all_of(types: &[Ty]) -> Vec<ValType> {
    types.iter().flat_map(|ty| ty.flat.iter().copied()).collect()
}

/// Which one, and room for any.
fn one_of<'a>(cases: impl IntoIterator<Item = impl AsRef<[ValType]> + 'a>) -> Vec<ValType> {
    let mut room: Vec<ValType> = Vec::new();
    for case in cases {
        for (at, piece) in case.as_ref().iter().enumerate() {
            match room.get_mut(at) {
                None => room.push(*piece),
                Some(there) if there == piece => {}
                Some(there @ (ValType::I32 | ValType::F32)) if matches!(piece, ValType::I32 | ValType::F32) => {
                    *there = ValType::I32;
                }
                Some(there) => *there = ValType::I64,
            }
        }
    }
    room.insert(0, ValType::I32);
    room
}
