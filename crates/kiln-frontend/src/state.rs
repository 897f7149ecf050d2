//! A filesystem in the making, with the defaults of the steps that run in it.

use kiln_dockerfile::shell;
use kiln_llb::NetMode;
use kiln_llb::builder::{EnvList, Output};
use kiln_oci::Platform;

#[derive(Clone, Debug)]
pub(crate) struct State {
    /// `None` is scratch.
    pub(crate) output: Option<Output>,
    pub(crate) env: EnvList,
    pub(crate) dir: String,
    pub(crate) user: String,
    pub(crate) hostname: String,
    pub(crate) network: NetMode,
    /// Of the image it began with; steps run on it.
    pub(crate) platform: Option<Platform>,
}

impl Default for State {
    fn default() -> Self {
        State::new(None)
    }
}

impl State {
    pub(crate) fn new(output: Option<Output>) -> Self {
        State {
            output,
            env: EnvList::default(),
            dir: "/".to_string(),
            user: String::new(),
            hostname: String::new(),
            network: NetMode::Default,
            platform: None,
        }
    }

    /// Sets the working directory; a relative one is below the present one.
    pub(crate) fn set_dir(&mut self, dir: &str) {
        self.dir =
            if dir.starts_with('/') { dir.to_string() } else { kiln_go::path::join(&[&self.dir, dir]) };
    }
}

/// Lets the lexer see variables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvOf<'a>(pub(crate) &'a EnvList);

impl shell::Env for EnvOf<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }
}
