//! Which devices a step means.

use crate::registry::{Device, Devices};
use crate::spec::Edits;

/// The class by which a vendor lets a device be asked for.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// What a step asks for: `vendor/class=name`, `vendor/class=*`, `vendor/class` (the first of them), or the class of an
/// annotation.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// One of these forms.
    pub name: &'a str,
    /// The step does without.
    pub optional: bool,
}

/// There is no such device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("required device {0:?} is not registered")]
pub struct NotRegistered(pub String);

impl Devices {
    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// What the requests mean, each device once.
    ///
    /// # Errors
    /// If a request that is not optional means nothing here.
    pub fn find(&self, requests: &[Request<'_>]) -> Result<Vec<&Device>, NotRegistered> {
        let mut found: Vec<&Device> = Vec::new();
        for request in requests {
            let meant = self.meant(request.name);
            if meant.is_empty() && !request.optional {
                return Err(NotRegistered(request.name.into()));
            }
            for device in meant {
                if !found.iter().any(|f| f.name == device.name) {
                    found.push(device);
                }
            }
        }
        Ok(found)
    }

    fn meant(&self, request: &str) -> Vec<&Device> {
        let (kind, name) = request.split_once('=').unwrap_or((request, ""));
        let of_kind = || self.iter().filter(|d| d.name.split_once('=').is_some_and(|(k, _)| k == kind));
        let named: Vec<&Device> = match name {
            _ if !kind.contains('/') => Vec::new(),
            "" => of_kind().take(1).collect(),
            "*" => of_kind().collect(),
            _ => self.devices.get(request).into_iter().collect(),
        };
        if !named.is_empty() {
            return named;
        }
        self.iter().filter(|d| d.annotations.get(CLASS).is_some_and(|c| c == request)).collect()
    }
}

impl Edits {
    /// What a process that uses these devices is given: of each file its common part once, then the devices' own.
    pub fn of(devices: &[&Device]) -> Self {
        let mut all = Self::default();
        let mut seen = Vec::new();
        for device in devices {
            let file = std::sync::Arc::as_ptr(&device.shared);
            if !seen.contains(&file) {
                seen.push(file);
                all.append(&device.shared);
            }
            all.append(&device.own);
        }
        all
    }
}
