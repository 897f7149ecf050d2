//! EXPOSE: ports and ranges of ports.

use super::wrong;
use crate::convert::Converter;
use crate::fail::Result;
use crate::gofmt;
use crate::lint::Rule;
use crate::stages::StageId;
use crate::state::EnvOf;
use kiln_dockerfile::Range;
use kiln_go::quote;
use serde_json::{Map, Value};
use std::net::IpAddr;

impl Converter<'_> {
    pub(super) fn expose(&mut self, id: StageId, words: &[String], at: Range) -> Result<()> {
        let mut specs = Vec::new();
        for word in words {
            specs.extend(self.lex.process_words(word, &EnvOf(&self.stages.list[id].state.env))?);
        }
        let mut ports = Vec::new();
        for spec in &specs {
            let port = PortSpec::parse(spec)?;
            if port.proto != port.proto.to_lowercase() {
                self.lint.report(Rule::ExposeProtoCasing(spec.clone()), Some(at));
            }
            if !port.ip.is_empty() || !port.host_port.is_empty() {
                self.lint.report(Rule::ExposeInvalidFormat(spec.clone()), Some(at));
            }
            ports.extend(port.expand()?);
        }
        let text = format!("EXPOSE {}", gofmt::plain_list(&ports));
        let exposed = &mut self.stages.list[id].image.config.exposed_ports;
        exposed.extend(ports.into_iter().map(|p| (p, Value::Object(Map::new()))));
        self.commit(id, text, false);
        Ok(())
    }
}

/// `[ip:][host:]container[/proto]`
#[derive(Debug)]
struct PortSpec<'a> {
    ip: String,
    host_port: &'a str,
    port: &'a str,
    proto: &'a str,
}

impl<'a> PortSpec<'a> {
    fn parse(spec: &'a str) -> Result<PortSpec<'a>> {
        let parts: Vec<&str> = spec.split(':').collect();
        let (ip, host_port, port) = match parts[..] {
            [port] => (String::new(), "", port),
            [host, port] => (String::new(), host, port),
            [ref ip @ .., host, port] => (ip.join(":"), host, port),
            [] => (String::new(), "", ""),
        };
        let (port, proto) = port.split_once('/').unwrap_or((port, ""));
        let bad = |what: String| wrong(format!("invalid port: {}: {what}", quote(spec)));
        if port.is_empty() {
            return Err(bad("no port specified".to_string()));
        }
        let proto = match proto.to_lowercase().as_str() {
            "" => "tcp",
            "tcp" | "udp" | "sctp" => proto,
            _ => return Err(bad(format!("invalid proto: {proto}"))),
        };
        Ok(PortSpec { ip, host_port, port, proto })
    }

    fn expand(&self) -> Result<Vec<String>> {
        let ip = self.ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(&self.ip);
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            return Err(wrong(format!("invalid IP address: {}", self.ip)));
        }
        let (start, end) =
            range(self.port).ok_or_else(|| wrong(format!("invalid containerPort: {}", self.port)))?;
        if !self.host_port.is_empty() {
            let host = range(self.host_port)
                .ok_or_else(|| wrong(format!("invalid hostPort: {}", self.host_port)))?;
            if end - start != host.1 - host.0 && end != start {
                let (port, host) = (self.port, self.host_port);
                return Err(wrong(format!(
                    "invalid ranges specified for container and host Ports: {port} and {host}"
                )));
            }
        }
        let proto = self.proto.to_lowercase();
        Ok((start..=end).map(|n| format!("{n}/{proto}")).collect())
    }
}

/// First and last port.
fn range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(spec: &str) -> std::result::Result<Vec<String>, String> {
        PortSpec::parse(spec).and_then(|p| p.expand()).map_err(|e| e.to_string())
    }

    #[test]
    fn specs() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("80-82/UDP").unwrap(), ["80/udp", "81/udp", "82/udp"]);
        assert_eq!(ports("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("[::1]:8080:80/sctp").unwrap(), ["80/sctp"]);
        assert_eq!(ports("foo").unwrap_err(), "invalid containerPort: foo");
        assert_eq!(ports("82-80").unwrap_err(), "invalid containerPort: 82-80");
        assert_eq!(ports("80/x").unwrap_err(), "invalid port: \"80/x\": invalid proto: x");
        assert_eq!(
            ports("1-2:80-85").unwrap_err(),
            "invalid ranges specified for container and host Ports: 80-85 and 1-2"
        );
        assert_eq!(ports("x:1:80").unwrap_err(), "invalid IP address: x");
        assert_eq!(ports("70000").unwrap_err(), "invalid containerPort: 70000");
    }
}
