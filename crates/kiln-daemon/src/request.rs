//! Requests, checked. Everything that is wrong or not built is refused by name: nothing of a request is ignored.

use kiln_engine::{Entitlement, ExporterSpec, FrontendRequest, SolveInput, SolveRequest, SourceRules};
use kiln_llb::Definition;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_policy::Policies;
use kiln_proto::extra::{DefinitionExtra, SolveRequestExtra};
use kiln_proto::{control, pb};
use kiln_snapshot::{Filter, PruneOpts};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tonic::Status;

/// Longest id of a build or a session, in bytes. BuildKit's clients use 25.
const MAX_NAME: usize = 512;
/// Most filters of a request, and most bytes of all of them.
const MAX_FILTERS: usize = 256;
const MAX_FILTER_BYTES: usize = 64 << 10;
/// Most exporters of a build.
const MAX_EXPORTERS: usize = 64;
/// Behaviour that clients may ask for; the last one is what there is (spec wire.md section 2).
const COMPATIBILITY: [i64; 3] = [10, 20, 30];

/// The filters of a request.
pub(crate) fn filter(call: &str, entries: &[String]) -> Result<Filter, Status> {
    filter_size(call, entries)?;
    Filter::parse_all(entries).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// Whether there are too many.
pub(crate) fn filter_size(call: &str, entries: &[String]) -> Result<(), Status> {
    if entries.len() > MAX_FILTERS || entries.iter().map(String::len).sum::<usize>() > MAX_FILTER_BYTES {
        return Err(Status::invalid_argument(format!("{call}: the filter is too large")));
    }
    Ok(())
}

/// Nanoseconds.
pub(crate) fn duration(call: &str, field: &str, nanos: i64) -> Result<Duration, Status> {
    amount(call, field, nanos).map(Duration::from_nanos)
}

fn amount(call: &str, field: &str, n: i64) -> Result<u64, Status> {
    u64::try_from(n).map_err(|_| Status::invalid_argument(format!("{call}: {field} is negative: {n}")))
}

/// An id that a client chose.
pub(crate) fn name(call: &str, field: &str, id: &str) -> Result<(), Status> {
    named(call, field, id).map_err(Status::invalid_argument)
}

fn named(call: &str, field: &str, id: &str) -> Result<(), String> {
    match id {
        "" => Err(format!("{call}: {field} is missing")),
        id if id.len() > MAX_NAME => Err(format!("{call}: {field} is longer than {MAX_NAME} bytes")),
        id if id.chars().any(char::is_control) => Err(format!("{call}: {field} has control characters")),
        _ => Ok(()),
    }
}

/// What is to be pruned.
pub(crate) fn prune(r: &control::PruneRequest) -> Result<PruneOpts, Status> {
    let bytes = |field, n| amount("Prune", field, n);
    Ok(PruneOpts {
        filter: filter("Prune", &r.filter)?,
        all: r.all,
        keep_duration: duration("Prune", "keepDuration", r.keep_duration)?,
        reserved: bytes("reservedSpace", r.reserved_space)?,
        max_used: bytes("maxUsedSpace", r.max_used_space)?,
        min_free: bytes("minFreeSpace", r.min_free_space)?,
    })
}

/// A build.
pub(crate) fn solve_request(
    r: control::SolveRequest,
    extra: &SolveRequestExtra,
) -> Result<SolveRequest, BuildError> {
    named("Solve", "Ref", &r.r#ref).map_err(|e| invalid(&e))?;
    if !r.session.is_empty() {
        named("Solve", "Session", &r.session).map_err(|e| invalid(&e))?;
    }
    compatibility(extra.compatibility_version)?;
    refuse_what_is_not_built(&r)?;
    let entitlements = r.entitlements.iter().map(|e| entitlement(e)).collect::<Result<_, _>>()?;
    let exporters: Vec<_> = if r.exporters.is_empty() && !r.exporter_deprecated.is_empty() {
        vec![exporter(r.exporter_deprecated, r.exporter_attrs_deprecated)]
    } else {
        r.exporters.into_iter().map(|e| exporter(e.r#type, e.attrs)).collect()
    };
    if exporters.len() > MAX_EXPORTERS {
        return Err(invalid(&format!("Solve: more than {MAX_EXPORTERS} exporters")));
    }
    let attrs: BTreeMap<_, _> = r.frontend_attrs.into_iter().collect();
    let input = match (r.frontend.as_str(), r.definition) {
        ("", None) => SolveInput::Client { inputs: decode_all(&r.frontend_inputs, extra)? },
        ("", Some(definition)) => SolveInput::Definition(decode(&definition, extra.definition.as_ref())?),
        (_, Some(_)) => return Err(invalid("invalid request: definition and frontend cannot both be set")),
        (_, None) => SolveInput::Frontend(FrontendRequest {
            name: r.frontend,
            opts: attrs.clone(),
            inputs: decode_all(&r.frontend_inputs, extra)?,
        }),
    };
    let sources = SourceRules {
        policies: Policies::read(&r.source_policy).map_err(|e| invalid(&e.to_string()))?,
        session: r.source_policy_session,
    };
    if !sources.session.is_empty() {
        named("Solve", "SourcePolicySession", &sources.session).map_err(|e| invalid(&e))?;
    }
    let exporters = with_epoch(exporters, &attrs);
    let (id, session, internal) = (r.r#ref, r.session, r.internal);
    let session_exporter = r.enable_session_exporter;
    Ok(SolveRequest {
        id,
        session,
        input,
        exporters,
        entitlements,
        sources,
        proxy_network: extra.proxy_network,
        session_exporter,
        internal,
        attrs,
    })
}

/// A time in the build arguments holds for all exporters that name none. What is no number is for the frontend.
fn with_epoch(mut exporters: Vec<ExporterSpec>, args: &BTreeMap<String, String>) -> Vec<ExporterSpec> {
    let epoch = args.get("build-arg:SOURCE_DATE_EPOCH").filter(|v| v.parse::<i64>().is_ok());
    if let Some(epoch) = epoch {
        for exporter in &mut exporters {
            exporter.attrs.entry("source-date-epoch".to_string()).or_insert_with(|| epoch.clone());
        }
    }
    exporters
}

fn exporter(kind: String, attrs: HashMap<String, String>) -> ExporterSpec {
    ExporterSpec { kind, attrs: attrs.into_iter().collect() }
}

fn entitlement(text: &str) -> Result<Entitlement, BuildError> {
    text.parse().map_err(|e: String| invalid(&e))
}

fn decode(definition: &pb::Definition, newer: Option<&DefinitionExtra>) -> Result<Definition, BuildError> {
    let known = Definition::decode(definition).map_err(|e| invalid(&e.to_string()))?;
    Ok(known.with_newer(newer.cloned().unwrap_or_default()))
}

fn decode_all(
    inputs: &HashMap<String, pb::Definition>,
    extra: &SolveRequestExtra,
) -> Result<BTreeMap<String, Definition>, BuildError> {
    let newer = |name: &String| extra.frontend_inputs.get(name);
    inputs.iter().map(|(name, input)| Ok((name.clone(), decode(input, newer(name))?))).collect()
}

fn compatibility(version: i64) -> Result<(), BuildError> {
    let [.., current] = COMPATIBILITY;
    match version {
        0 => Ok(()),
        v if v == current => Ok(()),
        v if COMPATIBILITY.contains(&v) => Err(unimplemented(&format!("compatibility-version {v}"))),
        v if v > current => Err(invalid(&format!(
            "unsupported compatibility-version {v}: upgrade buildkit (max supported: {current})"
        ))),
        v => Err(invalid(&format!("unsupported compatibility-version {v} (supported: {COMPATIBILITY:?})"))),
    }
}

fn refuse_what_is_not_built(r: &control::SolveRequest) -> Result<(), BuildError> {
    let cache = r.cache.as_ref();
    if cache.is_some_and(|c| !c.exports.is_empty() || !c.export_ref_deprecated.is_empty()) {
        return Err(unimplemented("cache export"));
    }
    Ok(())
}

fn invalid(message: &str) -> BuildError {
    BuildError::new(Code::InvalidArgument, message)
}

fn unimplemented(what: &str) -> BuildError {
    BuildError::new(Code::Unimplemented, format!("{what}: not built yet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> control::SolveRequest {
        control::SolveRequest { r#ref: "r".into(), frontend: "dockerfile.v0".into(), ..Default::default() }
    }

    fn checked(r: control::SolveRequest) -> Result<SolveRequest, BuildError> {
        solve_request(r, &SolveRequestExtra::default())
    }

    #[test]
    fn old_and_new_exporters() {
        let old = control::SolveRequest { exporter_deprecated: "image".into(), ..request() };
        assert_eq!(checked(old).unwrap().exporters[0].kind, "image");
        let both = control::SolveRequest {
            exporter_deprecated: "image".into(),
            exporters: vec![control::Exporter { r#type: "oci".into(), attrs: HashMap::new() }],
            ..request()
        };
        let kinds: Vec<_> = checked(both).unwrap().exporters.into_iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["oci"]);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let cache = control::CacheOptions { exports: vec![Default::default()], ..Default::default() };
        let error = checked(control::SolveRequest { cache: Some(cache), ..request() }).unwrap_err();
        assert_eq!(error.code, Code::Unimplemented);
        assert!(error.message.contains("cache export"));
        let nothing = control::SolveRequest { frontend: String::new(), ..request() };
        assert!(matches!(checked(nothing).unwrap().input, SolveInput::Client { .. }));
        let device = control::SolveRequest { entitlements: vec!["device=a".into()], ..request() };
        assert_eq!(checked(device).unwrap().entitlements[0].as_str(), "device");
        let odd = control::SolveRequest { entitlements: vec!["root".into()], ..request() };
        assert!(checked(odd).unwrap_err().message.contains("invalid entitlement"));
        let newer = |extra| solve_request(request(), &extra).map(|_| ()).map_err(|e| e.message);
        let version =
            |compatibility_version| SolveRequestExtra { compatibility_version, ..Default::default() };
        assert_eq!(newer(version(30)), Ok(()));
        assert_eq!(newer(version(20)), Err("compatibility-version 20: not built yet".into()));
        assert_eq!(
            newer(version(-1)),
            Err("unsupported compatibility-version -1 (supported: [10, 20, 30])".into())
        );
        assert!(newer(version(i64::MAX)).unwrap_err().contains("upgrade buildkit (max supported: 30)"));
        let proxy = SolveRequestExtra { proxy_network: true, ..Default::default() };
        assert!(solve_request(request(), &proxy).unwrap().proxy_network);
        assert!(!checked(request()).unwrap().proxy_network);
    }

    #[test]
    fn ids_and_amounts_have_bounds() {
        for bad in [String::new(), "x".repeat(513), "a\0b".into(), "a\nb".into()] {
            let r = control::SolveRequest { r#ref: bad.clone(), ..request() };
            assert_eq!(checked(r).unwrap_err().code, Code::InvalidArgument, "{bad:?}");
            assert!(name("Status", "Ref", &bad).is_err());
        }
        let many = vec![control::Exporter::default(); 65];
        assert!(checked(control::SolveRequest { exporters: many, ..request() }).is_err());
        let both = control::SolveRequest { definition: Some(pb::Definition::default()), ..request() };
        assert!(checked(both).unwrap_err().message.contains("cannot both be set"));
        let negative = prune(&control::PruneRequest { max_used_space: -1, ..Default::default() });
        assert_eq!(negative.unwrap_err().message(), "Prune: maxUsedSpace is negative: -1");
        assert!(duration("DiskUsage", "ageLimit", i64::MIN).is_err());
        assert!(filter("Prune", &vec![String::new(); 257]).is_err());
        assert!(filter("Prune", &["id==".to_string() + &"x".repeat(70_000)]).is_err());
        assert!(filter("Prune", &["type==".into(), "==".into()]).is_err());
    }
}
