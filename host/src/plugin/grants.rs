//! What an author can do about an import that is not granted: the line that grants it, or that nothing does and what there
//! is instead. Names only; links nothing.

/// What to do about imports of this beginning (a package, or an interface of one).
struct Remedy {
    import: &'static str,
    text: &'static str,
}

const REMEDIES: [Remedy; 9] = [
    Remedy { import: "wasi:filesystem/", text: "files are never granted" },
    Remedy { import: "wasi:sockets/", text: "sockets and name lookup are never granted" },
    Remedy { import: "wasi:http/incoming-handler", text: "a handler is called by records and never by requests" },
    Remedy {
        import: "wasi:http/",
        text: "to let it ask by HTTP, add `allow.hosts = [\"api.example.com\"]` to [handler], with the hosts that it asks",
    },
    Remedy {
        import: "wasi:config/",
        text: "configuration is not granted in this form; write it under `settings` in [handler], and import \
               sluicebox:plugin/settings",
    },
    Remedy { import: "wasi:keyvalue/", text: "stores are never granted; state lives in the handler's memory" },
    Remedy {
        import: "wasi:logging/",
        text: "logging is not granted in this form; print, or import sluicebox:plugin/log, which is always granted",
    },
    Remedy { import: "wasi:nn/", text: "inference on the host is never granted" },
    Remedy {
        import: "wasi:messaging/",
        text: "a handler sends messages by its answer, to the outputs of its pipeline",
    },
];

/// What to do about these imports, each advice once.
pub(super) fn remedies(imports: &[String]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for import in imports {
        let text = remedy(import);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

fn remedy(import: &str) -> String {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    if let Some(remedy) = REMEDIES.iter().find(|remedy| name.starts_with(remedy.import)) {
        return remedy.text.to_owned();
    }
    let linked = super::wasi::LINKED.iter().any(|(package, interface)| name == format!("{package}/{interface}"));
    if linked && !version.is_empty() {
        return format!("of {name} this host has version 0.2, not {version}");
    }
    format!("this host has no {name}, and nothing grants it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_import_has_its_advice_once() {
        let imports = [
            "wasi:filesystem/types@0.2.3",
            "wasi:filesystem/preopens@0.2.3",
            "wasi:sockets/tcp@0.2.3",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/types@0.2.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:io/poll@0.3.0",
            "acme:own/thing@1.0.0",
            "init",
        ];
        let expected = [
            "files are never granted",
            "sockets and name lookup are never granted",
            "a handler is called by records and never by requests",
            "to let it ask by HTTP, add `allow.hosts = [\"api.example.com\"]` to [handler], with the hosts that it asks",
            "of wasi:io/poll this host has version 0.2, not 0.3.0",
            "this host has no acme:own/thing, and nothing grants it",
            "this host has no init, and nothing grants it",
        ];
        assert_eq!(remedies(&imports.map(str::to_owned)), expected);
    }
}
