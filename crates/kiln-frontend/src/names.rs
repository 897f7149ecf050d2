//! Display names of steps (spec dockerfile.md section 12).

use crate::stages::Stage;
use crate::state::EnvOf;
use kiln_dockerfile::shell::{Env, Lex};
use kiln_llb::builder::EnvList;
use kiln_oci::Platform;

/// The first word in upper case.
pub(crate) fn uppercase_first(text: &str) -> String {
    match text.split_once(' ') {
        Some((first, rest)) => format!("{} {rest}", first.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// With variables replaced by their values, or as it is where that fails.
pub(crate) fn expand<E: Env + ?Sized>(lex: &Lex, text: &str, env: &E) -> String {
    lex.process_word(text, env).map_or_else(|_| text.to_string(), |e| e.text)
}

/// `[<platform> <stage> <i>/<n>] text`; counts the step.
pub(crate) fn prefix(stage: &mut Stage, text: &str, platform: Option<&Platform>, env: &EnvList) -> String {
    if stage.command_total == 0 {
        return text.to_string();
    }
    let mut out = String::from("[");
    if let Some(p) = platform.filter(|_| stage.show_platform) {
        out.push_str(&p.format_all());
        out.push_str(&cross_target(p, env));
        out.push(' ');
    }
    if !stage.display_name.is_empty() {
        out.push_str(&stage.display_name);
        out.push(' ');
    }
    stage.command_index += 1;
    let total = stage.command_total.to_string();
    out.push_str(&format!("{:width$}/{total}] ", stage.command_index, width = total.len()));
    if stage.in_onbuild {
        out.push_str("ONBUILD ");
    }
    out.push_str(text);
    out
}

/// `->arm64` when the variables of the stage name another target than the platform it runs on.
fn cross_target(on: &Platform, env: &EnvList) -> String {
    let Some(mut target) = target_in(env) else { return String::new() };
    if target.os.is_empty() {
        target.os.clone_from(&on.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&on.architecture);
    }
    let p = target.normalize();
    match (p.os == on.os, p.architecture == on.architecture) {
        (true, true) => String::new(),
        (true, false) if p.variant.is_empty() => format!("->{}", p.architecture),
        (true, false) => format!("->{}/{}", p.architecture, p.variant),
        (false, _) => format!("->{}", p.format_all()),
    }
}

fn target_in(env: &EnvList) -> Option<Platform> {
    let mut p = None;
    for (key, value) in env.iter() {
        let value = value.to_string();
        match key {
            "TARGETPLATFORM" => {
                if let Ok(p) = Platform::parse(&value) {
                    return Some(p);
                }
            }
            "TARGETOS" => p.get_or_insert_with(Platform::default).os = value,
            "TARGETARCH" => p.get_or_insert_with(Platform::default).architecture = value,
            "TARGETVARIANT" => p.get_or_insert_with(Platform::default).variant = value,
            _ => {}
        }
    }
    p
}

/// Variables of a step, those that hold secrets as stars.
#[derive(Debug)]
pub(crate) struct Masked<'a> {
    pub(crate) env: EnvOf<'a>,
    pub(crate) secrets: Vec<String>,
}

impl Env for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.secrets.iter().any(|s| s == name) { Some("****") } else { self.env.get(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_builds_name_their_target() {
        let amd64 = Platform::new("linux", "amd64");
        let with = |pairs: &[(&str, &str)]| {
            let mut env = EnvList::default();
            for (k, v) in pairs {
                env.set(k, v);
            }
            cross_target(&amd64, &env)
        };
        assert_eq!(with(&[]), "");
        assert_eq!(with(&[("TARGETARCH", "arm64")]), "->arm64");
        assert_eq!(with(&[("TARGETPLATFORM", "linux/arm/v7")]), "->arm/v7");
        assert_eq!(with(&[("TARGETOS", "windows"), ("TARGETARCH", "amd64")]), "->windows/amd64");
        assert_eq!(with(&[("TARGETPLATFORM", "linux/amd64")]), "");
    }

    #[test]
    fn the_first_word_is_loud() {
        assert_eq!(uppercase_first("copy a b"), "COPY a b");
        assert_eq!(uppercase_first("run"), "RUN");
    }
}
