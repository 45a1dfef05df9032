//! A good component of somebody else's world.

#[allow(missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        inline: "
            package elsewhere:thing@1.0.0;
            interface greeter { greet: func(name: string) -> string; }
            world thing { export greeter; }
        ",
    });
}

struct Greeter;

impl bindings::exports::elsewhere::thing::greeter::Guest for Greeter {
    fn greet(name: String) -> String {
        format!("hello {name}")
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Greeter with_types_in bindings);
