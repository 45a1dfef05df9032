//! HTTPS: a server has to be who it says, to somebody whom the machine or the operator believes.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sluicebox::plugin::HandlerLimits;

use super::server::Server;
use super::{Asker, Names};

#[test]
fn a_server_has_to_be_who_it_says_to_somebody_who_is_believed() {
    let make = || rcgen::generate_simple_self_signed(["secure.test".to_owned()]).expect("a certificate");
    let (made, another) = (make(), make());
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let (ca, other) = (file("ca.pem", made.cert.pem()), file("other.pem", another.cert.pem()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    let server = Server::on("127.0.0.1:0", Some(Arc::new(tls)));
    // Speaks first, and no TLS.
    let plain = TcpListener::bind("127.0.0.1:0").expect("an address of this machine");
    let port = plain.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in plain.incoming().map_while(Result::ok) {
            _ = stream.write_all(b"220 not what you think\r\n");
        }
    });
    let names = || Names::of(&[("secure.test", &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])]);
    let sites = [
        format!("secure.test:{}", server.port()),
        format!("other.test:{}", server.port()),
        format!("other.test:{port}"),
    ];
    let limits = HandlerLimits::default;
    let asker = Asker::trusting(Some(ca), &sites, &["127.0.0.1"], names(), limits());
    assert_eq!(asker.ask_one(&format!("GET https secure.test:{} /hello", server.port())), "200 hello");
    // Another name than the certificate's, and one who speaks no TLS.
    assert_eq!(asker.ask_one(&format!("GET https other.test:{} /hello", server.port())), "TlsCertificateError");
    assert_eq!(asker.ask_one(&format!("GET https other.test:{port} /hello")), "TlsProtocolError");
    assert!(asker.lines()[0].contains(&format!("no TLS with other.test:{}: ", server.port())), "{:?}", asker.lines());
    assert_eq!(server.seen.heads().len(), 1);

    let stranger = Asker::trusting(Some(other), &sites, &["127.0.0.1"], names(), limits());
    assert_eq!(stranger.ask_one(&format!("GET https secure.test:{} /hello", server.port())), "TlsCertificateError");
}
