//! The platform of a vertex.

/// An OS and a processor (pb.Platform, OCI image spec "platform").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// Such as `v7`.
    pub variant: String,
    /// Windows build number.
    pub os_version: String,
    /// Required OS features.
    pub os_features: Vec<String>,
}

impl Platform {
    /// The usual spelling of the same platform, as containerd's `platforms.Normalize` has it.
    pub fn normalize(&self) -> Platform {
        let os = match self.os.to_lowercase() {
            os if os == "macos" => "darwin".to_string(),
            os => os,
        };
        let (architecture, variant) = normalize_arch(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Platform { architecture, os, variant, os_version: self.os_version.clone(), os_features }
    }
}

fn normalize_arch(arch: &str, variant: &str) -> (String, String) {
    let (arch, variant) = (arch.to_lowercase(), variant.to_lowercase());
    let (a, v) = match arch.as_str() {
        "i386" => ("386", ""),
        "x86_64" | "x86-64" | "amd64" => ("amd64", if variant == "v1" { "" } else { variant.as_str() }),
        "aarch64" | "arm64" => {
            let v = match variant.as_str() {
                "8" | "v8" | "v8.0" => "",
                "9" | "9.0" | "v9.0" => "v9",
                other => other,
            };
            ("arm64", v)
        }
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        "arm" => {
            let v = match variant.as_str() {
                "" | "7" => "v7",
                "5" => "v5",
                "6" => "v6",
                "8" => "v8",
                other => other,
            };
            ("arm", v)
        }
        other => (other, variant.as_str()),
    };
    (a.to_string(), v.to_string())
}
