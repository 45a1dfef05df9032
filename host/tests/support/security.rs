//! A broker with every kind of listener: certificates made by `keytool`, users for SASL, rights by ACLs.
//!
//! All secrets here are made for one broker that lives for one test on the loopback address.

use std::path::{Path, PathBuf};
use std::process::Command;

use rdkafka::ClientConfig;

/// The password of all key stores.
const STORE_PASSWORD: &str = "sluicebox-test";

/// One user that the broker knows under both SASL mechanisms, PLAIN and SCRAM.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub name: &'static str,
    pub password: &'static str,
}

/// May do everything.
pub const ADMIN: User = User { name: "admin", password: "admin-secret" };
/// May do what a test allows it; without ACLs, everything.
pub const ALICE: User = User { name: "alice", password: "alice-secret" };

/// The listeners of a secured broker beside `PLAINTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    SaslPlaintext,
    SaslSsl,
    Ssl,
}

impl Listener {
    pub const ALL: [Listener; 3] = [Listener::SaslPlaintext, Listener::SaslSsl, Listener::Ssl];

    /// The name of the listener and of its security protocol, as the broker spells it.
    pub fn name(self) -> &'static str {
        match self {
            Listener::SaslPlaintext => "SASL_PLAINTEXT",
            Listener::SaslSsl => "SASL_SSL",
            Listener::Ssl => "SSL",
        }
    }
}

/// What a client needs to log in: `properties` for librdkafka (`-X KEY=VALUE` of the host takes the same).
#[derive(Clone, Debug)]
pub struct Login {
    pub properties: Vec<(String, String)>,
}

impl Login {
    pub fn new(listener: Listener, mechanism: &str, user: &str, password: &str, ca: &Path) -> Login {
        let mut properties = vec![("security.protocol", listener.name().to_ascii_lowercase())];
        if listener != Listener::Ssl {
            properties.push(("sasl.mechanism", mechanism.to_owned()));
            properties.push(("sasl.username", user.to_owned()));
            properties.push(("sasl.password", password.to_owned()));
        }
        if listener != Listener::SaslPlaintext {
            properties.push(("ssl.ca.location", ca.display().to_string()));
        }
        let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Login { properties }
    }

    pub fn apply(&self, config: &mut ClientConfig) {
        for (key, value) in &self.properties {
            config.set(key, value);
        }
    }
}

/// The certificates of one broker.
#[derive(Clone, Debug)]
pub struct Certificates {
    key_store: PathBuf,
    /// The certificate in PEM: self-signed, so it is its own authority.
    pub ca: PathBuf,
}

impl Certificates {
    /// Makes a self-signed certificate for the loopback address in `directory`.
    pub fn make(directory: &Path) -> Certificates {
        let made = Certificates { key_store: directory.join("broker.p12"), ca: directory.join("ca.pem") };
        keytool(&[
            "-genkeypair",
            "-alias",
            "broker",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-validity",
            "2",
            "-dname",
            "CN=localhost",
            "-ext",
            "SAN=dns:localhost,ip:127.0.0.1",
            "-ext",
            "bc:c",
            "-storetype",
            "PKCS12",
            "-keystore",
            &made.key_store.display().to_string(),
            "-storepass",
            STORE_PASSWORD,
        ]);
        keytool(&[
            "-exportcert",
            "-rfc",
            "-alias",
            "broker",
            "-keystore",
            &made.key_store.display().to_string(),
            "-storepass",
            STORE_PASSWORD,
            "-file",
            &made.ca.display().to_string(),
        ]);
        made
    }

    /// The broker's properties for the secured listeners; the users of PLAIN are among them.
    pub fn properties(&self) -> Vec<(String, String)> {
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let users: String =
            [ADMIN, ALICE].iter().map(|user| format!(" user_{}=\"{}\"", user.name, user.password)).collect();
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let mut properties = vec![
            ("ssl.keystore.location".to_owned(), self.key_store.display().to_string()),
            ("ssl.keystore.password".to_owned(), STORE_PASSWORD.to_owned()),
            ("ssl.keystore.type".to_owned(), "PKCS12".to_owned()),
            ("sasl.enabled.mechanisms".to_owned(), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned()),
        ];
        for listener in ["sasl_plaintext", "sasl_ssl"] {
            properties.push((format!("listener.name.{listener}.plain.sasl.jaas.config"), format!("{plain}{users};")));
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                properties.push((format!("listener.name.{listener}.{mechanism}.sasl.jaas.config"), scram.to_owned()));
            }
        }
        properties
    }
}

/// Arguments of `StorageTool format` that make the SCRAM users.
pub fn scram_users() -> Vec<String> {
    let mut arguments = Vec::new();
    for user in [ADMIN, ALICE] {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            arguments.push("--add-scram".to_owned());
            arguments.push(format!("{mechanism}=[name={},password={}]", user.name, user.password));
        }
    }
    arguments
}

/// Rights are checked; whoever comes by the plain listeners may do everything, like the user `admin`.
pub fn acl_properties() -> Vec<(String, String)> {
    vec![
        ("authorizer.class.name".to_owned(), "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("super.users".to_owned(), format!("User:ANONYMOUS;User:{}", ADMIN.name)),
    ]
}

fn keytool(arguments: &[&str]) {
    let output = Command::new("keytool").args(arguments).output().expect("keytool comes with Java and cannot be run");
    assert!(
        output.status.success(),
        "keytool {}: {}{}",
        arguments[0],
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
