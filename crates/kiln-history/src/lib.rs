//! Records of the builds that were.
