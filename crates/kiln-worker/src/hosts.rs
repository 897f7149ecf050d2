//! `/etc/hosts` and `/etc/resolv.conf` as a step sees them.

use std::fmt::Write as _;

/// What `[dns]` of the configuration says; empty parts are taken from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Options.
    pub options: Vec<String>,
    /// Search list.
    pub search_domains: Vec<String>,
}

/// Name servers used when the host names none that a step could reach (as Docker does).
const FALLBACK: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The hosts file: loopback names, then `extra` as (name, address).
pub(crate) fn hosts_file<'a>(hostname: &str, extra: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (host, ip) in extra {
        let _ = writeln!(out, "{ip}\t{host}");
    }
    out
}

/// The resolver configuration from the host's text. In a network of its own a step cannot reach resolvers on the
/// host's loopback, so they are left out.
pub(crate) fn resolv_conf(host: &str, dns: &DnsConfig, host_network: bool) -> String {
    let words = |key: &str| -> Vec<Vec<String>> {
        let lines = host.lines().map(|l| l.split(['#', ';']).next().unwrap_or_default());
        lines
            .map(|l| l.split_whitespace().map(str::to_string).collect::<Vec<_>>())
            .filter(|w| w.first().is_some_and(|k| k == key) && w.len() > 1)
            .map(|w| w[1..].to_vec())
            .collect()
    };
    let or = |own: &[String], found: Vec<String>| if own.is_empty() { found } else { own.to_vec() };
    let usable = |ns: &String| host_network || !(ns.starts_with("127.") || ns == "::1");
    let found = words("nameserver").into_iter().map(|mut w| w.remove(0)).filter(usable).collect();
    let mut nameservers = or(&dns.nameservers, found);
    if nameservers.is_empty() && !host_network {
        nameservers = FALLBACK.map(str::to_string).to_vec();
    }
    let search = or(&dns.search_domains, words("search").pop().unwrap_or_default());
    let options = or(&dns.options, words("options").concat());
    let mut out = String::new();
    for ns in nameservers {
        let _ = writeln!(out, "nameserver {ns}");
    }
    if !search.is_empty() {
        let _ = writeln!(out, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(out, "options {}", options.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2 ; far\nsearch a.example b.example\noptions edns0\n";

    #[test]
    fn a_step_on_the_host_network_sees_the_hosts_resolver() {
        let all = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a.example b.example\noptions edns0\n";
        assert_eq!(resolv_conf(HOST, &DnsConfig::default(), true), all);
        assert!(!resolv_conf(HOST, &DnsConfig::default(), false).contains("127."));
        assert_eq!(
            resolv_conf("nameserver ::1\n", &DnsConfig::default(), false),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
    }

    #[test]
    fn the_configuration_wins() {
        let dns = DnsConfig { nameservers: vec!["10.9.9.9".into()], ..DnsConfig::default() };
        assert!(resolv_conf(HOST, &dns, false).starts_with("nameserver 10.9.9.9\nsearch a.example"));
    }

    #[test]
    fn hosts_end_with_the_extra_ones() {
        let text = hosts_file("box", [("db", "10.0.0.9")].into_iter());
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.9\tdb\n"
        );
    }
}
