//! Instructions that only change the image config.

use super::wrong;
use crate::convert::Converter;
use crate::fail::Result;
use crate::gofmt;
use crate::image_config;
use crate::lint::{self, Rule};
use crate::stages::StageId;
use kiln_dockerfile::{CommandLine, Healthcheck, Pair, Range};
use serde_json::{Map, Value};

/// Names of signal(7), with the aliases that Docker takes.
const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

impl Converter<'_> {
    pub(super) fn maintainer(&mut self, id: StageId, name: String) {
        self.commit(id, format!("MAINTAINER {name}"), false);
        self.stages.list[id].image.author = name;
    }

    fn report_legacy(&mut self, pair: &Pair, keyword: &str, at: Range) {
        if pair.legacy {
            self.lint.report(Rule::LegacyKeyValueFormat(keyword.to_string()), Some(at));
        }
    }

    pub(super) fn env(&mut self, id: StageId, pairs: &[Pair], keyword: &str, at: Range) -> Result<()> {
        let mut text = "ENV".to_string();
        for pair in pairs {
            self.report_legacy(pair, keyword, at);
            lint::secret_key("ENV", &pair.key, at, self.lint);
            text.push_str(&format!(" {}={}", pair.key, pair.value));
            self.set_env(id, &pair.key, &pair.value)?;
            let env = &mut self.stages.list[id].image.config.env;
            image_config::set_env(env, &pair.key, &pair.value);
        }
        self.commit(id, text, false);
        Ok(())
    }

    pub(super) fn label(&mut self, id: StageId, pairs: Vec<Pair>, keyword: &str, at: Range) {
        let mut text = "LABEL".to_string();
        for pair in pairs {
            self.report_legacy(&pair, keyword, at);
            text.push_str(&format!(" {}={}", pair.key, pair.value));
            self.stages.list[id].image.config.labels.insert(pair.key, pair.value);
        }
        self.commit(id, text, false);
    }

    /// The words of CMD or ENTRYPOINT; the shell form is remarked on.
    fn words(&mut self, id: StageId, line: CommandLine, keyword: String, at: Range) -> Vec<String> {
        let image = &self.stages.list[id].image;
        match line {
            CommandLine::Exec(words) => words,
            CommandLine::Shell(text) => {
                let words = image_config::with_shell(image, &text);
                if image.config.shell.is_empty() {
                    self.lint.report(Rule::JsonArgsRecommended(keyword), Some(at));
                }
                words
            }
        }
    }

    fn once(&mut self, last: Option<Range>, keyword: &str) {
        if last.is_some() {
            self.lint.report(Rule::MultipleInstructionsDisallowed(keyword.to_string()), last);
        }
    }

    pub(super) fn cmd(&mut self, id: StageId, line: CommandLine, keyword: String, at: Range) {
        let last = self.stages.list[id].last_cmd.replace(at);
        self.once(last, &keyword);
        let words = self.words(id, line, keyword, at);
        let text = format!("CMD {}", gofmt::quoted_list(&words));
        let config = &mut self.stages.list[id].image.config;
        config.cmd = words;
        config.args_escaped = true;
        self.commit(id, text, false);
    }

    pub(super) fn entrypoint(&mut self, id: StageId, line: CommandLine, keyword: String, at: Range) {
        let last = self.stages.list[id].last_entrypoint.replace(at);
        self.once(last, &keyword);
        let words = self.words(id, line, keyword, at);
        let text = format!("ENTRYPOINT {}", gofmt::quoted_list(&words));
        let stage = &mut self.stages.list[id];
        stage.image.config.entrypoint = words;
        if stage.last_cmd.is_none() {
            stage.image.config.cmd.clear();
        }
        self.commit(id, text, false);
    }

    pub(super) fn healthcheck(&mut self, id: StageId, h: &Healthcheck, keyword: String, at: Range) {
        let last = self.stages.list[id].last_healthcheck.replace(at);
        self.once(last, &keyword);
        let mut check = kiln_oci::Healthcheck { test: h.test(), ..Default::default() };
        if let Healthcheck::Command { interval, timeout, start_period, start_interval, retries, .. } = h {
            check.interval = *interval;
            check.timeout = *timeout;
            check.start_period = *start_period;
            check.start_interval = *start_interval;
            check.retries = i64::from(*retries);
        }
        let text = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            gofmt::plain_list(&check.test),
            kiln_go::duration::format(check.interval),
            kiln_go::duration::format(check.timeout),
            kiln_go::duration::format(check.start_period),
            kiln_go::duration::format(check.start_interval),
            check.retries
        );
        self.stages.list[id].image.config.healthcheck = Some(check);
        self.commit(id, text, false);
    }

    pub(super) fn user(&mut self, id: StageId, user: String) {
        self.commit(id, format!("USER {user}"), false);
        let stage = &mut self.stages.list[id];
        stage.state.user.clone_from(&user);
        stage.image.config.user = user;
    }

    pub(super) fn volume(&mut self, id: StageId, paths: Vec<String>) -> Result<()> {
        if paths.iter().any(String::is_empty) {
            return Err(wrong("VOLUME specified can not be an empty string"));
        }
        let text = format!("VOLUME {}", gofmt::plain_list(&paths));
        let volumes = &mut self.stages.list[id].image.config.volumes;
        volumes.extend(paths.into_iter().map(|p| (p, Value::Object(Map::new()))));
        self.commit(id, text, false);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, id: StageId, signal: String) -> Result<()> {
        if !is_signal(&signal) {
            return Err(wrong(format!("invalid signal: {signal}")));
        }
        self.commit(id, format!("STOPSIGNAL {signal}"), false);
        self.stages.list[id].image.config.stop_signal = signal;
        Ok(())
    }

    pub(super) fn shell(&mut self, id: StageId, words: Vec<String>) {
        self.commit(id, format!("SHELL {}", gofmt::plain_list(&words)), false);
        self.stages.list[id].image.config.shell = words;
    }
}

/// Any number but zero, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(n) = text.parse::<i64>() {
        return n != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, max: u8| {
        let n = name.strip_prefix(prefix).filter(|n| !n.starts_with(['0', '+']));
        n.and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= max)
    };
    SIGNALS.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for ok in ["9", "SIGKILL", "kill", "rtmin+15", "SIGRTMAX-14", "RTMIN", "-1"] {
            assert!(is_signal(ok), "{ok}");
        }
        for bad in ["", "0", "foo", "SIG", "RTMIN+16", "RTMAX-0", "RTMIN+01", "RTMAX-15"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
