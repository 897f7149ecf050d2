//! Questions about the daemon and its store.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use kiln_proto::control::{
    DiskUsageRequest, InfoRequest, ListWorkersRequest, PruneRequest as WirePrune, UsageRecord as WireRecord,
};
use kiln_proto::worker::{BuildkitVersion, GcPolicy as WirePolicy, WorkerRecord};

use crate::Client;
use crate::convert::time;
use crate::error::build_error;

/// One thing in the daemon's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Its name.
    pub id: String,
    /// It can still change.
    pub mutable: bool,
    /// A build uses it now.
    pub in_use: bool,
    /// Bytes.
    pub size: i64,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// How often it was used.
    pub usage_count: i64,
    /// What it is.
    pub description: String,
    /// `regular`, `source.local`, ...
    pub record_type: String,
    /// Images outside the cache use it too.
    pub shared: bool,
    /// What it is built on.
    pub parents: Vec<String>,
}

/// What to remove from the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Only what matches one of these.
    pub filters: Vec<String>,
    /// Also what frontends and the daemon itself need.
    pub all: bool,
    /// Keep what was used since.
    pub keep_duration: Duration,
    /// Bytes that are always kept.
    pub reserved_space: i64,
    /// Bytes that the cache may have at most.
    pub max_used_space: i64,
    /// Bytes that must be free on the disk.
    pub min_free_space: i64,
}

/// A version, as programs print it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Such as `github.com/moby/buildkit`.
    pub package: String,
    /// Such as `v0.29.0`.
    pub version: String,
    /// Commit.
    pub revision: String,
}

/// A rule by which a daemon cleans up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// Also what frontends and the daemon itself need.
    pub all: bool,
    /// Keep what was used since.
    pub keep_duration: Duration,
    /// Only what matches one of these.
    pub filters: Vec<String>,
    /// Bytes that are always kept.
    pub reserved_space: i64,
    /// Bytes that the cache may have at most.
    pub max_used_space: i64,
    /// Bytes that must be free on the disk.
    pub min_free_space: i64,
}

/// A device that steps may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `vendor/class=name`
    pub name: String,
    /// Whether it may be used without an entitlement.
    pub auto_allow: bool,
    /// What its vendor says of it.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is made when it is asked for.
    pub on_demand: bool,
}

/// A worker of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Its name.
    pub id: String,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
    /// What it can build for, its own first.
    pub platforms: Vec<Platform>,
    /// How it cleans up.
    pub gc_policy: Vec<GcPolicy>,
    /// Its version.
    pub version: Option<Version>,
    /// Devices that steps may use.
    pub devices: Vec<Device>,
}

impl Client {
    /// What is in the cache.
    pub async fn disk_usage(&self, filters: &[String]) -> Result<Vec<UsageRecord>, BuildError> {
        let request = DiskUsageRequest { filter: filters.to_vec(), age_limit: 0 };
        let answer = self.control().disk_usage(request).await.map_err(build_error);
        let answer = answer.map_err(|e| e.context("failed to call diskusage"))?;
        Ok(answer.into_inner().record.into_iter().map(record).collect())
    }

    /// Removes from the cache; yields what is removed. Dropping the stream stops it.
    pub async fn prune(
        &self,
        request: &PruneRequest,
    ) -> Result<impl Stream<Item = Result<UsageRecord, BuildError>> + Send + use<>, BuildError> {
        let wire = WirePrune {
            filter: request.filters.clone(),
            all: request.all,
            keep_duration: i64::try_from(request.keep_duration.as_nanos()).unwrap_or(i64::MAX),
            reserved_space: request.reserved_space,
            max_used_space: request.max_used_space,
            min_free_space: request.min_free_space,
        };
        let failed = |e: BuildError| e.context("failed to call prune");
        let stream = self.control().prune(wire).await.map_err(build_error).map_err(failed)?.into_inner();
        Ok(stream.map(move |r| r.map(record).map_err(build_error).map_err(failed)))
    }

    /// The workers of the daemon.
    pub async fn workers(&self, filters: &[String]) -> Result<Vec<Worker>, BuildError> {
        let request = ListWorkersRequest { filter: filters.to_vec() };
        let answer = self.control().list_workers(request).await.map_err(build_error);
        let answer = answer.map_err(|e| e.context("failed to list workers"))?;
        Ok(answer.into_inner().record.into_iter().map(worker).collect())
    }

    /// The version of the daemon.
    pub async fn info(&self) -> Result<Version, BuildError> {
        let answer = self.control().info(InfoRequest {}).await.map_err(build_error);
        let answer = answer.map_err(|e| e.context("failed to call info"))?;
        Ok(answer.into_inner().buildkit_version.map(version).unwrap_or_default())
    }
}

fn record(r: WireRecord) -> UsageRecord {
    UsageRecord {
        id: r.id,
        mutable: r.mutable,
        in_use: r.in_use,
        size: r.size,
        created_at: time(r.created_at),
        last_used_at: time(r.last_used_at),
        usage_count: r.usage_count,
        description: r.description,
        record_type: r.record_type,
        shared: r.shared,
        parents: r.parents,
    }
}

fn version(v: BuildkitVersion) -> Version {
    Version { package: v.package, version: v.version, revision: v.revision }
}

fn policy(p: WirePolicy) -> GcPolicy {
    GcPolicy {
        all: p.all,
        keep_duration: Duration::from_nanos(u64::try_from(p.keep_duration).unwrap_or(0)),
        filters: p.filters,
        reserved_space: p.reserved_space,
        max_used_space: p.max_used_space,
        min_free_space: p.min_free_space,
    }
}

fn worker(w: WorkerRecord) -> Worker {
    let device = |d: kiln_proto::worker::CdiDevice| Device {
        name: d.name,
        auto_allow: d.auto_allow,
        annotations: d.annotations.into_iter().collect(),
        on_demand: d.on_demand,
    };
    Worker {
        devices: w.cdi_devices.into_iter().map(device).collect(),
        id: w.id,
        labels: w.labels.into_iter().collect(),
        platforms: w.platforms.into_iter().map(kiln_llb::platform::from_pb).collect(),
        gc_policy: w.gc_policy.into_iter().map(policy).collect(),
        version: w.buildkit_version.map(version),
    }
}
