//! Platforms as messages carry them.

use kiln_oci::Platform;
use kiln_proto::pb;

/// As a message.
pub fn to_pb(p: Platform) -> pb::Platform {
    let Platform { architecture, os, variant, os_version, os_features } = p;
    pb::Platform { architecture, os, variant, os_version, os_features }
}

/// From a message. Every field may be empty: what that means is for the reader to say.
pub fn from_pb(p: pb::Platform) -> Platform {
    let pb::Platform { architecture, os, variant, os_version, os_features } = p;
    Platform { architecture, os, variant, os_version, os_features }
}
