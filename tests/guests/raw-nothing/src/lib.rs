//! A component of another kind.

wit_bindgen::generate!({
    inline: "package test:raw-nothing;
        world guest {
            export greet: func() -> string;
        }",
});

struct Component;

export!(Component);

impl Guest for Component {
    fn greet() -> String {
        "hello".to_owned()
    }
}
