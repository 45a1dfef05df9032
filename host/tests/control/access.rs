//! Who may not. That a pipeline goes on is seen each time: a refusal that comes after the deed would be none.

use std::net::{SocketAddr, UdpSocket};

use crate::raw::raw;
use crate::scene::{Scene, sluicebox};
use crate::support::guests::guest;

const TOKEN: &str = "a-token-of-many-characters";

/// Proves: a web page that a browser on this machine shows can neither pause a pipeline nor read of it, not even when its name
/// was made to point here; the same request from a program works.
#[test]
fn a_web_page_can_do_nothing() {
    let mut scene = Scene::running(1);
    let address = scene.host().admin();
    let path = format!("/v1/pipelines/{}/pause", scene.name);
    for (headers, code) in [
        (format!("Host: {address}\r\nOrigin: http://evil.example\r\n"), "403"),
        (format!("Host: {address}\r\nOrigin: null\r\n"), "403"),
        (format!("Host: {address}\r\nSec-Fetch-Site: cross-site\r\n"), "403"),
        (format!("Host: {address}\r\nContent-Type: text/plain\r\n"), "415"),
        ("Host: evil.example\r\nOrigin: http://evil.example\r\n".to_owned(), "403"),
    ] {
        let answer = raw(address, &format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{headers}: {answer}");
        assert!(answer.contains("application/problem+json") && !answer.to_lowercase().contains("access-control"));
    }
    let read = raw(address, "GET /v1/pipelines HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(read.starts_with("HTTP/1.1 403 ") && !read.contains(&scene.name), "{read}");
    assert_eq!(scene.status()["state"], "running");
    let answer = raw(address, &format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    scene.wait_for_state("paused");
    scene.stop();
}

/// Proves: from an address that is not this machine's own, nothing is to be had without the token, and everything with it; a
/// token that is written anew counts at once. Method: the machine's own address in its network, which is as foreign to the
/// host as any.
#[test]
fn another_machine_needs_the_token() {
    let Some(own) = network_address() else {
        eprintln!("NOT RUN: this machine has no address but its own (the rules are tested in admin/guard.rs)");
        return;
    };
    let admin = "listen = \"0.0.0.0:0\"\ntoken_file = \"token\"";
    let mut scene = Scene::new(&guest("forward"), 1, "", admin);
    let token = scene.file("token");
    std::fs::write(&token, format!("{TOKEN}\n")).expect("a token");
    scene.start();
    scene.wait_for_state("running");
    let port = scene.host().admin().port();
    let (here, there) = (format!("http://127.0.0.1:{port}"), format!("http://{own}:{port}"));
    let (name, file) = (scene.name.clone(), token.display().to_string());
    let wrong = scene.file("wrong");
    std::fs::write(&wrong, "b-token-of-many-characters").expect("written");
    for verb in ["pause", "status"] {
        sluicebox(&[verb, &name, "--host", &there]).refused(1, &["this needs the token", "--token-file"]);
        let wrong = wrong.display().to_string();
        sluicebox(&[verb, &name, "--host", &there, "--token-file", &wrong]).refused(1, &["this needs the token"]);
    }
    let address: SocketAddr = format!("{own}:{port}").parse().expect("an address");
    for (path, code) in [("/livez", "200"), ("/metrics", "401"), ("/readyz", "401"), ("/", "401")] {
        let answer = raw(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{path}: {answer}");
    }
    sluicebox(&["pause", &name, "--host", &there, "--token-file", &file]).ok();
    let seen = sluicebox(&["status", &name, "--host", &here]).ok();
    assert!(seen.data.contains("PAUSED"), "a neighbour needs none: {seen:?}");
    std::fs::rename(&wrong, &token).expect("another token");
    sluicebox(&["resume", &name, "--host", &there, "--token-file", &file]).ok();
    std::fs::write(&token, "short").expect("written");
    sluicebox(&["resume", &name, "--host", &there, "--token-file", &file]).refused(2, &["too short"]);
    scene.stop();
}

/// Proves: a host that could be reached by others does not start without a token that keeps them out.
#[test]
fn a_port_for_others_needs_a_token_that_is_one() {
    let scene = Scene::new(&guest("forward"), 1, "", "listen = \"0.0.0.0:0\"");
    let (manifest, config) = (scene.file("pipeline.toml"), scene.file("host.toml"));
    let (manifest, config) = (manifest.display().to_string(), config.display().to_string());
    let start = || sluicebox(&["host", "-f", &manifest, "--config", &config]);
    start().refused(1, &["error[SB0104]", "needs a token", "token_file"]);
    let text = std::fs::read_to_string(&config).expect("the host's file") + "token_file = \"token\"\n";
    std::fs::write(&config, text).expect("written");
    start().refused(1, &["error[SB0211]", "`admin.token_file` cannot be read"]);
    std::fs::write(scene.file("token"), "too-short").expect("written");
    start().refused(5, &["too short", "at least 16 characters"]);
}

/// The address that this machine has in its network. Nothing is sent: a datagram socket that is connected has chosen one.
fn network_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
