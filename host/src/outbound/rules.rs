//! Which requests may leave, as pure rules: what a granted site is, what a request's target has to look like, and which
//! addresses nobody gets who was not given that very range. Resolves no name and opens no connection; `client` asks it
//! before a request, `connect` before every connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a site is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Readable by anybody on the way.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port: what is granted, and what a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// How.
    pub scheme: Scheme,
    /// In lower case; an IPv6 address in brackets.
    pub host: String,
    /// Never left out.
    pub port: u16,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Http {
            f.write_str("http://")?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Site {
    /// As manifests write it: `HOST`, `HOST:PORT`, with `http://` or `https://` before it. Without either it is HTTPS.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, authority) = split_scheme(text);
        Self::of_authority(scheme, authority)
    }

    fn of_authority(scheme: Scheme, authority: &str) -> Result<Self, String> {
        if authority.contains('@') {
            return Err("a user name or password has no place in it".to_owned());
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err("it ends with the host or its port, there is no path in it".to_owned());
        }
        let (host, port) = match authority.rfind(']') {
            Some(end) => (&authority[..=end], &authority[end + 1..]),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => scheme.port(),
            // A sign or a space would be taken by `parse`.
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{digits} is no port"))?
            }
            _ => return Err(format!("`{port}` is no port")),
        };
        Ok(Self { scheme, host: host_name(host)?, port })
    }

    /// The site that a request is for.
    ///
    /// # Errors
    /// Why it is for none that could be granted.
    pub fn of_request(scheme: &str, authority: &str, path: &str) -> Result<Self, String> {
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("`{other}` is neither http nor https")),
        };
        // Also what a proxy would take for the target (`http://other/`), and the `*` that is for servers as a whole.
        if !path.starts_with('/') {
            return Err(format!("the path has to begin with `/`, it is `{path}`"));
        }
        Self::of_authority(scheme, authority)
    }
}

fn split_scheme(text: &str) -> (Scheme, &str) {
    if let Some(rest) = text.strip_prefix("http://") {
        (Scheme::Http, rest)
    } else {
        (Scheme::Https, text.strip_prefix("https://").unwrap_or(text))
    }
}

/// A host in its one form, or why it has none. What resolvers read as an address in another notation (`2130706433`,
/// `0177.0.0.1`, `0x7f.1`) is no name.
fn host_name(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| format!("`{host}` is no IPv6 address"))?;
        return Ok(format!("[{address}]"));
    }
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let host = host.to_ascii_lowercase();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(legal);
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(format!("`{host}` is no host name"));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if number && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` is an address in a notation that is not taken: write A.B.C.D"));
    }
    Ok(host)
}

/// What the operator lets manifests grant: a site, or with `*.` before the host all names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SitePattern {
    below: bool,
    site: Site,
}

impl SitePattern {
    /// As [`Site::parse`], and `*.example.com`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, authority) = split_scheme(text);
        let below = authority.strip_prefix("*.");
        let site = Site::of_authority(scheme, below.unwrap_or(authority))?;
        Ok(Self { below: below.is_some(), site })
    }

    /// True when a manifest may name this site.
    #[must_use]
    pub fn covers(&self, site: &Site) -> bool {
        let below = || site.host.strip_suffix(&self.site.host).is_some_and(|front| front.ends_with('.'));
        let host = if self.below { below() } else { site.host == self.site.host };
        host && site.scheme == self.site.scheme && site.port == self.site.port
    }
}

/// Addresses that agree in their first bits. IPv4 ones are kept as IPv6 ones that embed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u128,
    /// Bits of 128.
    prefix: u32,
}

/// Bits before the embedded address in `::ffff:0:0/96`.
const MAPPED: u32 = 96;

impl Range {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32) -> Self {
        Self { first: Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().to_bits(), prefix: MAPPED + prefix }
    }

    const fn v6(first: u128, prefix: u32) -> Self {
        Self { first, prefix }
    }

    /// `ADDRESS` or `ADDRESS/BITS`, where some of it is refused unless it is named, and all of it for the same reason.
    ///
    /// # Errors
    /// Why it cannot be named.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is no address"))?;
        let (first, before, most) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), MAPPED, 32),
            IpAddr::V6(address) => (address.to_bits(), 0, 128),
        };
        let bits = if text.contains('/') {
            let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
            let bits = bits.parse().ok().filter(|bits| digits && *bits <= most);
            bits.ok_or_else(|| format!("after `/` comes a number of bits up to {most}"))?
        } else {
            most
        };
        let range = Self { first, prefix: before + bits };
        if range.masked(range.first) != range.first {
            return Err(format!("it has bits set beyond the first {bits}"));
        }
        match REFUSED.iter().find(|(refused, _)| refused.contains(range.first)) {
            Some((refused, _)) if refused.prefix <= range.prefix => Ok(range),
            Some((_, class)) => Err(format!("it is wider than what is refused as {class}: name that")),
            None => Err("nothing there is refused, or more than one kind of addresses".to_owned()),
        }
    }

    const fn masked(self, bits: u128) -> u128 {
        if self.prefix == 0 { 0 } else { bits >> (128 - self.prefix) << (128 - self.prefix) }
    }

    const fn contains(self, bits: u128) -> bool {
        self.masked(bits) == self.first
    }
}

/// What is refused unless the operator names it, and what it is. The first that contains an address is the one that counts:
/// who was given a range has not been given the metadata service in it.
const REFUSED: [(Range, &str); 34] = [
    (Range::v4(169, 254, 169, 254, 32), "cloud metadata"),
    (Range::v4(169, 254, 170, 2, 32), "cloud metadata"),
    (Range::v4(100, 100, 100, 200, 32), "cloud metadata"),
    (Range::v4(168, 63, 129, 16, 32), "cloud metadata"),
    (Range::v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128), "cloud metadata"),
    (Range::v6(0xfd20_00ce_0000_0000_0000_0000_0000_0254, 128), "cloud metadata"),
    (Range::v4(127, 0, 0, 0, 8), "loopback"),
    (Range::v6(1, 128), "loopback"),
    (Range::v4(10, 0, 0, 0, 8), "private"),
    (Range::v4(172, 16, 0, 0, 12), "private"),
    (Range::v4(192, 168, 0, 0, 16), "private"),
    (Range::v6(0xfc00 << 112, 7), "private"),
    (Range::v4(169, 254, 0, 0, 16), "link-local"),
    (Range::v6(0xfe80 << 112, 10), "link-local"),
    (Range::v6(0xfec0 << 112, 10), "site-local"),
    (Range::v4(100, 64, 0, 0, 10), "carrier-grade NAT"),
    (Range::v4(0, 0, 0, 0, 8), "unspecified"),
    (Range::v6(0, 128), "unspecified"),
    (Range::v4(224, 0, 0, 0, 4), "multicast"),
    (Range::v6(0xff00 << 112, 8), "multicast"),
    (Range::v4(240, 0, 0, 0, 4), "reserved"),
    (Range::v4(192, 0, 0, 0, 24), "reserved"),
    (Range::v4(192, 0, 2, 0, 24), "documentation"),
    (Range::v4(198, 51, 100, 0, 24), "documentation"),
    (Range::v4(203, 0, 113, 0, 24), "documentation"),
    (Range::v6(0x2001_0db8 << 96, 32), "documentation"),
    (Range::v6(0x3fff << 112, 20), "documentation"),
    (Range::v4(198, 18, 0, 0, 15), "benchmarking"),
    (Range::v4(192, 88, 99, 0, 24), "6to4"),
    (Range::v6(0x2002 << 112, 16), "6to4"),
    (Range::v6(0x2001 << 112, 23), "reserved"),
    (Range::v6(0x0064_ff9b_0001 << 80, 48), "local NAT64"),
    (Range::v6(0x0100 << 112, 64), "discard"),
    (Range::v6(0x5f00 << 112, 16), "segment routing"),
];

/// The only part of IPv6 that is given out, and the prefix by which NAT64 embeds IPv4.
const GLOBAL_V6: Range = Range::v6(0x2000 << 112, 3);
const ALL_V4: Range = Range::v6(0xffff << 32, MAPPED);
const NAT64: Range = Range::v6(0x0064_ff9b << 96, 96);

/// Looks at an address that is about to be connected to, whoever named it. `named` are the ranges of the operator.
///
/// # Errors
/// What kind of address it is.
pub fn check_address(address: IpAddr, named: &[Range]) -> Result<(), &'static str> {
    let mut bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    if NAT64.contains(bits) {
        // Whoever translates goes to the address inside.
        bits = ALL_V4.first | (bits & u128::from(u32::MAX));
    }
    match REFUSED.iter().find(|(refused, _)| refused.contains(bits)) {
        Some((refused, class)) => {
            let given = |range: &&Range| range.prefix >= refused.prefix && range.contains(bits);
            named.iter().find(given).map(|_| ()).ok_or(class)
        }
        None if ALL_V4.contains(bits) || GLOBAL_V6.contains(bits) => Ok(()),
        None => Err("not of the public internet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Site {
        Site::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn sites_have_one_form() {
        for (written, shown) in [
            ("api.example.com", "api.example.com:443"),
            ("API.Example.com:8443", "api.example.com:8443"),
            ("https://api.example.com", "api.example.com:443"),
            ("http://api.example.com", "http://api.example.com:80"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("93.184.216.34", "93.184.216.34:443"),
            ("[2606:2800:220:1:0:0:0:1]:443", "[2606:2800:220:1::1]:443"),
            ("_svc.a-b.example", "_svc.a-b.example:443"),
        ] {
            assert_eq!(site(written).to_string(), shown);
            assert_eq!(site(shown), site(written));
        }
    }

    /// Proves: what could mean another place to whoever reads it next is no site, in a manifest and in a request.
    #[test]
    fn what_could_be_read_in_two_ways_is_no_site() {
        for text in [
            "",
            ":443",
            "user@api.example.com",
            "api.example.com:443@127.0.0.1",
            "api.example.com@127.0.0.1:80",
            "api.example.com/path",
            "api.example.com?x",
            "api.example.com#@127.0.0.1",
            "api.example.com\\@127.0.0.1",
            "ftp://api.example.com",
            "api.example.com:",
            "api.example.com:0",
            "api.example.com:+80",
            "api.example.com:65536",
            "api.example.com:80:80",
            "api..example.com",
            "api.example.com.",
            ".example.com",
            "api example.com",
            "api.example.com\r\nHost: x",
            "%6c%6f%63alhost",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "::1",
            // Loopback as a decimal, an octal, a hexadecimal number, in fewer parts, in wide digits.
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0177.0.0.1",
            "127.0.0.01",
            "0x7f.0.0.0x1",
            "127.1",
            "127.0.1",
            "127.0.0.1.",
            "①②⑦.0.0.1",
        ] {
            assert!(Site::parse(text).is_err(), "{text:?} is {:?}", Site::parse(text));
            for scheme in ["http", "https"] {
                assert!(Site::of_request(scheme, text, "/").is_err(), "{scheme} {text:?}");
            }
        }
    }

    #[test]
    fn a_request_is_for_a_site_or_for_none() {
        let granted = site("http://api.example.com:8080");
        assert_eq!(Site::of_request("http", "API.example.com:8080", "/x?y=//z"), Ok(granted));
        for (scheme, authority, path) in [
            ("ftp", "api.example.com", "/"),
            ("file", "", "/etc/passwd"),
            ("HTTP", "api.example.com", "/"),
            ("http", "api.example.com:8080", ""),
            ("http", "api.example.com:8080", "*"),
            ("http", "api.example.com:8080", "http://169.254.169.254/latest/meta-data"),
            ("http", "api.example.com:8080", "@127.0.0.1/"),
            ("http", "api.example.com:8080", "x/y"),
        ] {
            assert!(Site::of_request(scheme, authority, path).is_err(), "{scheme} {authority} {path}");
        }
        // Each of the three parts counts.
        for (scheme, authority) in
            [("https", "api.example.com:8080"), ("http", "api.example.com"), ("http", "example.com:8080")]
        {
            let other = Site::of_request(scheme, authority, "/").expect("a site");
            assert_ne!(other, site("http://api.example.com:8080"), "{scheme} {authority}");
        }
    }

    #[test]
    fn a_pattern_covers_names_below_it_and_nothing_beside() {
        let covers = |pattern: &str, text: &str| SitePattern::parse(pattern).expect(pattern).covers(&site(text));
        assert!(covers("*.example.com", "api.example.com:443"));
        assert!(covers("*.example.com", "a.b.example.com"));
        assert!(covers("api.example.com", "https://API.example.com"));
        for other in ["example.com", "evilexample.com", "api.example.com.evil.net", "http://api.example.com"] {
            assert!(!covers("*.example.com", other), "{other}");
        }
        assert!(!covers("*.example.com", "api.example.com:8443"));
        assert!(!covers("api.example.com", "x.api.example.com"));
        assert!(SitePattern::parse("*").is_err() && SitePattern::parse("a.*.com").is_err());
    }

    /// Proves: whatever a name resolves to, and however an address is dressed up, what is not public is refused by its kind.
    #[test]
    fn addresses_that_are_not_public_are_refused_by_their_kind() {
        for (address, class) in [
            ("169.254.169.254", "cloud metadata"),
            ("169.254.170.2", "cloud metadata"),
            ("100.100.100.200", "cloud metadata"),
            ("168.63.129.16", "cloud metadata"),
            ("fd00:ec2::254", "cloud metadata"),
            ("fd20:ce::254", "cloud metadata"),
            ("::ffff:169.254.169.254", "cloud metadata"),
            ("64:ff9b::169.254.169.254", "cloud metadata"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:7f00:1", "loopback"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("::127.0.0.1", "not of the public internet"),
            ("10.0.0.1", "private"),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("::ffff:192.168.1.1", "private"),
            ("64:ff9b::10.1.2.3", "private"),
            ("fc00::1", "private"),
            ("fdff::1", "private"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("100.64.0.1", "carrier-grade NAT"),
            ("100.127.255.255", "carrier-grade NAT"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("ff02::1", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("192.0.0.192", "reserved"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("192.88.99.1", "6to4"),
            ("2002:7f00:1::1", "6to4"),
            ("2001::1", "reserved"),
            ("64:ff9b:1::1", "local NAT64"),
            ("100::1", "discard"),
            ("5f00::1", "segment routing"),
            ("4000::1", "not of the public internet"),
            ("fe00::1", "not of the public internet"),
        ] {
            let parsed = address.parse().expect(address);
            assert_eq!(check_address(parsed, &[]), Err(class), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "223.255.255.255",
            "2606:2800:220:1::1",
            "2a00:1450::1",
            "::ffff:93.184.216.34",
            "64:ff9b::93.184.216.34",
        ] {
            assert_eq!(check_address(address.parse().expect(address), &[]), Ok(()), "{address}");
        }
    }

    /// Proves: a named range opens itself, in whatever dress, and not the metadata service inside it.
    #[test]
    fn named_ranges_open_themselves_only() {
        let named = ["10.1.0.0/16", "127.0.0.2", "169.254.0.0/16", "fd00::/8", "::1"];
        let named: Vec<_> = named.iter().map(|text| Range::parse(text).expect(text)).collect();
        let open = |address: &str| check_address(address.parse().expect(address), &named).is_ok();
        for address in
            ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "127.0.0.2", "169.254.3.4", "fd12::1", "::1"]
        {
            assert!(open(address), "{address}");
        }
        for address in ["10.2.0.1", "127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "fd00:ec2::254", "fc00::1"] {
            assert!(!open(address), "{address}");
        }
        let metadata = [Range::parse("169.254.169.254").expect("an address that is refused")];
        assert_eq!(check_address(Ipv4Addr::new(169, 254, 169, 254).into(), &metadata), Ok(()));
    }

    #[test]
    fn a_range_that_opens_several_kinds_or_nothing_cannot_be_named() {
        for text in [
            "0.0.0.0/0",
            "::/0",
            "8.8.8.8",
            "8.0.0.0/8",
            "10.0.0.0/7",
            "168.0.0.0/6",
            "2606::/16",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0",
            "localhost",
            "",
        ] {
            assert!(Range::parse(text).is_err(), "{text:?} is {:?}", Range::parse(text));
        }
        for text in ["10.0.0.0/8", "10.7.0.0/16", "192.168.0.0/16", "fd00::/8", "169.254.169.254/32", "127.0.0.1"] {
            Range::parse(text).expect(text);
        }
    }
}
