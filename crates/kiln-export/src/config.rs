//! The image config: what the frontend gave, with layers, history and times filled in.
//!
//! It is patched as raw JSON, so that fields that kiln does not know keep their bytes.

use crate::ExportError;
use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_go::json::RawObject;
use kiln_oci::{History, ImageConfig, Platform, RootFs};
use kiln_snapshot::LayerBlob;

/// Comment of history entries that the exporter adds.
const COMMENT: &str = "buildkit.exporter.image.v0";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The config of a result without one.
pub(crate) fn empty(platform: &Platform) -> Result<Vec<u8>, ExportError> {
    let mut config = ImageConfig { platform: platform.clone(), ..ImageConfig::default() };
    config.config.working_dir = "/".into();
    config.config.env = vec![PATH.into()];
    kiln_go::json::to_vec(&config).map_err(ExportError::json)
}

/// Fills in `rootfs`, `history` and `created`. `base` is the history of the base image: where the image still has it
/// unchanged from the start, its times stay.
pub(crate) fn patch(
    json: &[u8],
    layers: &[LayerBlob],
    epoch: Option<Timestamp>,
    base: &[History],
) -> Result<Vec<u8>, ExportError> {
    let mut raw = RawObject::parse(json).map_err(ExportError::json)?;
    let config: ImageConfig = serde_json::from_slice(json).map_err(ExportError::json)?;
    for (name, value) in [("os", &config.platform.os), ("architecture", &config.platform.architecture)] {
        if value.is_empty() {
            return Err(ExportError::Config(format!("missing {name}")));
        }
    }
    let mut history = history(config.history, layers);
    if let Some(epoch) = epoch {
        clamp(&mut history, epoch, base);
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id).collect();
    raw.set("rootfs", &RootFs::layers(diff_ids)).map_err(ExportError::json)?;
    raw.set("history", &history).map_err(ExportError::json)?;
    match (config.created, epoch) {
        (Some(own), Some(epoch)) if own > epoch => raw.set("created", &Time(epoch)),
        (Some(_), _) => Ok(()),
        (None, _) => match history.iter().rev().find_map(|h| h.created) {
            Some(last) => raw.set("created", &Time(last)),
            None => raw.set("created", &()),
        },
    }
    .map_err(ExportError::json)?;
    raw.to_vec().map_err(ExportError::json)
}

/// Every layer gets an entry, every entry a time.
fn history(mut history: Vec<History>, layers: &[LayerBlob]) -> Vec<History> {
    // More entries than layers should not be; the surplus, at the end, made no layer.
    for entry in history.iter_mut().filter(|h| !h.empty_layer).skip(layers.len()) {
        entry.empty_layer = true;
    }
    let known = history.iter().filter(|h| !h.empty_layer).count();
    history.extend(layers[known..].iter().map(|layer| History {
        created: time(layer),
        created_by: layer.description.clone(),
        comment: COMMENT.into(),
        ..History::default()
    }));
    for (entry, layer) in history.iter_mut().filter(|h| !h.empty_layer).zip(layers) {
        entry.created = entry.created.or_else(|| time(layer));
    }
    fill_times(&mut history);
    history
}

/// An entry that made no layer has the time of the first new layer, so that it is not dated before the build by an old
/// base image; after the next one the time of that, and so on.
fn fill_times(history: &mut [History]) {
    let without = history.iter().position(|h| h.created.is_none()).unwrap_or(history.len());
    let first_new = history[without..].iter().find_map(|h| h.created);
    let mut time = first_new.or_else(|| history[..without].last().and_then(|h| h.created));
    for entry in &mut history[without..] {
        time = entry.created.or(time);
        entry.created = time;
    }
}

fn clamp(history: &mut [History], epoch: Timestamp, base: &[History]) {
    let of_base = history.iter().zip(base).take_while(|(own, base)| own == base).count();
    for entry in &mut history[of_base..] {
        entry.created = Some(entry.created.map_or(epoch, |t| t.min(epoch)));
    }
}

fn time(layer: &LayerBlob) -> Option<Timestamp> {
    Timestamp::try_from(layer.created_at).ok()
}

/// Printed as Go prints times.
struct Time(Timestamp);

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_oci::Descriptor;

    fn layer(n: u8) -> LayerBlob {
        LayerBlob {
            descriptor: Descriptor::of("x", &[n]),
            diff_id: Digest::sha256([n]),
            created_at: std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 + u64::from(n)),
            description: format!("layer {n}"),
        }
    }

    fn patched(json: &str, layers: &[LayerBlob], epoch: Option<i64>, base: &[History]) -> String {
        let epoch = epoch.and_then(|s| Timestamp::from_second(s).ok());
        String::from_utf8(patch(json.as_bytes(), layers, epoch, base).unwrap()).unwrap()
    }

    /// `created` of each history entry, as seconds.
    fn times(json: &str) -> Vec<Option<i64>> {
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        config.history.iter().map(|h| h.created.map(Timestamp::as_second)).collect()
    }

    #[test]
    fn the_whole_config() {
        let json = r#"{"os":"linux","x":{"b":1, "a":"<&>"},"architecture":"amd64","history":[{"created_by":"one"},{"created_by":"none","empty_layer":true}]}"#;
        assert_eq!(
            patched(json, &[layer(1), layer(2)], None, &[]),
            concat!(
                r#"{"architecture":"amd64","created":"1970-01-01T00:16:42Z","#,
                r#""history":[{"created":"1970-01-01T00:16:41Z","created_by":"one"},"#,
                r#"{"created":"1970-01-01T00:16:42Z","created_by":"none","empty_layer":true},"#,
                r#"{"created":"1970-01-01T00:16:42Z","created_by":"layer 2","comment":"buildkit.exporter.image.v0"}],"#,
                r#""os":"linux","rootfs":{"type":"layers","diff_ids":["#,
                r#""sha256:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a","#,
                r#""sha256:dbc1b4c900ffe48d575b5da5c638040125f65db0fe3e24494b76ea986457d986"]},"#,
                r#""x":{"b":1,"a":"\u003c\u0026\u003e"}}"#,
            )
        );
    }

    #[test]
    fn entries_without_layer_are_dated_by_the_first_new_layer() {
        // An old base layer, then ENV, then COPY, then ENV, without times.
        let json = r#"{"os":"linux","architecture":"amd64","history":[
            {"created":"1970-01-01T00:00:01Z"},{"empty_layer":true},{},{"empty_layer":true}]}"#;
        assert_eq!(
            times(&patched(json, &[layer(1), layer(2)], None, &[])),
            [Some(1), Some(1002), Some(1002), Some(1002)]
        );
        // Without a new layer: the last known time.
        let json = r#"{"os":"linux","architecture":"amd64","history":[{"created":"1970-01-01T00:00:01Z"},{"empty_layer":true}]}"#;
        assert_eq!(times(&patched(json, &[layer(1)], None, &[])), [Some(1), Some(1)]);
    }

    #[test]
    fn more_entries_than_layers() {
        let json =
            r#"{"os":"linux","architecture":"amd64","history":[{"created_by":"a"},{"created_by":"b"}]}"#;
        let config = ImageConfig::parse(patched(json, &[layer(1)], None, &[]).as_bytes()).unwrap();
        assert_eq!(config.history.iter().map(|h| h.empty_layer).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn an_epoch_clamps_what_is_not_of_the_base_image() {
        let json = r#"{"architecture":"amd64","os":"linux","created":"2030-01-01T00:00:00Z","history":[
            {"created":"1970-01-01T00:00:09Z","created_by":"base"},{"created_by":"new"}]}"#;
        let base = [History {
            created: Timestamp::from_second(9).ok(),
            created_by: "base".into(),
            ..History::default()
        }];
        let out = patched(json, &[layer(1), layer(2)], Some(5), &base);
        assert_eq!(times(&out), [Some(9), Some(5)]);
        assert!(out.contains(r#""created":"1970-01-01T00:00:05Z","history""#), "{out}");
        let out = patched(json, &[layer(1), layer(2)], Some(5), &[]);
        assert_eq!(times(&out), [Some(5), Some(5)]);
    }

    #[test]
    fn a_config_must_say_where_it_runs() {
        let text = patch(br#"{"architecture":"amd64"}"#, &[], None, &[]).unwrap_err().to_string();
        assert_eq!(text, "invalid image config for export: missing os");
        assert!(patch(b"[]", &[], None, &[]).is_err());
        assert!(patch(b"null", &[], None, &[]).is_err());
        assert!(patch(&empty(&Platform::host()).unwrap(), &[], None, &[]).is_ok());
    }
}
