//! Which devices a step may use.

use crate::{DeviceGrant, Entitlement};
use kiln_cdi::{Devices, Registry, Request};
use kiln_llb::errdefs::BuildError;
use kiln_llb::{CdiDevice, ExecOp};

/// The devices that the step is to be given instead of those it asks for; `None` leaves them as they are.
///
/// A device may be used when the build is granted all, when a grant names it, or when it needs none. A grant with an
/// alias gives its device to whoever asks for the alias.
///
/// # Errors
/// If one is not registered or not granted.
pub(super) fn admit(
    exec: &ExecOp,
    granted: &[Entitlement],
    registry: &Registry,
) -> Result<Option<Vec<CdiDevice>>, BuildError> {
    let grants = granted.iter().filter_map(|e| if let Entitlement::Device(g) = e { Some(g) } else { None });
    let grants: Vec<&DeviceGrant> = grants.collect();
    if exec.cdi_devices.is_empty() || grants.contains(&&DeviceGrant::All) {
        return Ok(None);
    }
    let (mut given, mut rest) = (Vec::new(), Vec::new());
    for device in &exec.cdi_devices {
        match grants.iter().find_map(|g| g.by_alias(&device.name)) {
            Some(name) => given.push(CdiDevice { name: name.to_string(), optional: device.optional }),
            None => rest.push(Request { name: &device.name, optional: device.optional }),
        }
    }
    let devices = registry.scan();
    let meant = devices.find(&rest).map_err(|e| BuildError::msg(e.to_string()))?;
    let named = if meant.is_empty() { Vec::new() } else { named(&grants, &devices)? };
    let forbidden = meant.iter().filter(|d| !d.auto_allowed && !named.contains(&d.name));
    let forbidden: Vec<&str> = forbidden.map(|d| d.name.as_str()).collect();
    match forbidden.as_slice() {
        [] => {}
        [one] => {
            return Err(BuildError::msg(format!("device {one} is requested by the build but not allowed")));
        }
        all => {
            let all = all.join(", ");
            return Err(BuildError::msg(format!("devices {all} are requested by the build but not allowed")));
        }
    }
    given.extend(meant.iter().map(|d| CdiDevice { name: d.name.clone(), optional: false }));
    Ok(Some(given))
}

/// The devices that grants name without an alias.
fn named(grants: &[&DeviceGrant], devices: &Devices) -> Result<Vec<String>, BuildError> {
    let names = grants.iter().filter_map(|g| match g {
        DeviceGrant::Named { name, alias: None } => Some(Request { name, optional: false }),
        DeviceGrant::Named { alias: Some(_), .. } | DeviceGrant::All => None,
    });
    let found = devices.find(&names.collect::<Vec<_>>()).map_err(|e| BuildError::msg(e.to_string()))?;
    Ok(found.iter().map(|d| d.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "cdiVersion: '0.6.0'\nkind: v.com/d\ndevices: [{name: a}, {name: b}, {name: free, \
                        annotations: {org.mobyproject.buildkit.device.autoallow: true}}]";

    /// Names of what a step with these devices is given under these grants.
    fn ask(devices: &[&str], grants: &[&str]) -> Result<Option<Vec<String>>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("v.yaml"), FILE).unwrap();
        let registry = Registry::new(vec![dir.path().to_path_buf()], Vec::new());
        let device = |name: &&str| CdiDevice {
            name: name.trim_end_matches('?').to_string(),
            optional: name.ends_with('?'),
        };
        let exec = ExecOp { cdi_devices: devices.iter().map(device).collect(), ..ExecOp::default() };
        let grants: Vec<Entitlement> = grants.iter().map(|g| g.parse().unwrap()).collect();
        let admitted = admit(&exec, &grants, &registry).map_err(|e| e.message)?;
        Ok(admitted.map(|all| all.into_iter().map(|d| d.name).collect()))
    }

    fn given(names: &[&str]) -> Result<Option<Vec<String>>, String> {
        Ok(Some(names.iter().map(|n| (*n).to_string()).collect()))
    }

    #[test]
    fn a_device_must_be_granted_or_need_no_grant() {
        assert_eq!(ask(&[], &[]), Ok(None));
        assert_eq!(ask(&["v.com/d=free", "x.com/d=y?"], &[]), given(&["v.com/d=free"]));
        assert_eq!(
            ask(&["v.com/d=a"], &[]).unwrap_err(),
            "device v.com/d=a is requested by the build but not allowed"
        );
        assert_eq!(
            ask(&["v.com/d=*"], &["device=v.com/d=c,alias=v.com/d=c"]).unwrap_err(),
            "devices v.com/d=a, v.com/d=b are requested by the build but not allowed"
        );
        assert_eq!(ask(&["v.com/d=a"], &["device=v.com/d"]), given(&["v.com/d=a"]), "the first of the kind");
        assert_eq!(
            ask(&["v.com/d=*"], &["device=v.com/d=*"]),
            given(&["v.com/d=a", "v.com/d=b", "v.com/d=free"])
        );
        assert_eq!(ask(&["v.com/d=a"], &["device"]), Ok(None));
        assert_eq!(ask(&["x.com/d=y"], &[]).unwrap_err(), "required device \"x.com/d=y\" is not registered");
        assert_eq!(
            ask(&["v.com/d=b"], &["device=no/such=x"]).unwrap_err(),
            "required device \"no/such=x\" is not registered"
        );
    }

    #[test]
    fn an_alias_is_given_its_device_and_grants_no_other_name() {
        let alias = ["device=v.com/d=b,alias=gpu/any=one"];
        assert_eq!(ask(&["gpu/any=one"], &alias), given(&["v.com/d=b"]));
        assert_eq!(ask(&["gpu/any=one", "v.com/d=free"], &alias), given(&["v.com/d=b", "v.com/d=free"]));
        assert!(ask(&["v.com/d=b"], &alias).is_err());
    }
}
