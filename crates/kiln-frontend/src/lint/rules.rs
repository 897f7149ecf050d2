//! The rules and their texts.

use kiln_go::quote;

/// A rule, with what its message names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    StageNameCasing(String),
    FromAsCasing { from: String, as_word: String },
    NoEmptyContinuation,
    ConsistentInstructionCasing { command: String, casing: &'static str },
    DuplicateStageName(String),
    ReservedStageName(String),
    JsonArgsRecommended(String),
    MaintainerDeprecated,
    UndefinedArgInFrom { name: String, hint: Option<String> },
    WorkdirRelativePath(String),
    UndefinedVar { name: String, hint: Option<String> },
    MultipleInstructionsDisallowed(String),
    LegacyKeyValueFormat(String),
    InvalidBaseImagePlatform { image: String, expected: String, actual: String },
    RedundantTargetPlatform(String),
    SecretsUsedInArgOrEnv { instruction: &'static str, key: String },
    InvalidDefaultArgInFrom(String),
    FromPlatformFlagConstDisallowed(String),
    CopyIgnoredFile { command: &'static str, file: String },
    InvalidDefinitionDescription { instruction: &'static str, name: String },
    ExposeProtoCasing(String),
    ExposeInvalidFormat(String),
}

impl Rule {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Rule::StageNameCasing(_) => "StageNameCasing",
            Rule::FromAsCasing { .. } => "FromAsCasing",
            Rule::NoEmptyContinuation => "NoEmptyContinuation",
            Rule::ConsistentInstructionCasing { .. } => "ConsistentInstructionCasing",
            Rule::DuplicateStageName(_) => "DuplicateStageName",
            Rule::ReservedStageName(_) => "ReservedStageName",
            Rule::JsonArgsRecommended(_) => "JSONArgsRecommended",
            Rule::MaintainerDeprecated => "MaintainerDeprecated",
            Rule::UndefinedArgInFrom { .. } => "UndefinedArgInFrom",
            Rule::WorkdirRelativePath(_) => "WorkdirRelativePath",
            Rule::UndefinedVar { .. } => "UndefinedVar",
            Rule::MultipleInstructionsDisallowed(_) => "MultipleInstructionsDisallowed",
            Rule::LegacyKeyValueFormat(_) => "LegacyKeyValueFormat",
            Rule::InvalidBaseImagePlatform { .. } => "InvalidBaseImagePlatform",
            Rule::RedundantTargetPlatform(_) => "RedundantTargetPlatform",
            Rule::SecretsUsedInArgOrEnv { .. } => "SecretsUsedInArgOrEnv",
            Rule::InvalidDefaultArgInFrom(_) => "InvalidDefaultArgInFrom",
            Rule::FromPlatformFlagConstDisallowed(_) => "FromPlatformFlagConstDisallowed",
            Rule::CopyIgnoredFile { .. } => "CopyIgnoredFile",
            Rule::InvalidDefinitionDescription { .. } => "InvalidDefinitionDescription",
            Rule::ExposeProtoCasing(_) => "ExposeProtoCasing",
            Rule::ExposeInvalidFormat(_) => "ExposeInvalidFormat",
        }
    }

    pub(crate) fn is_experimental(&self) -> bool {
        matches!(self, Rule::InvalidDefinitionDescription { .. })
    }

    /// What the rule is about.
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Rule::StageNameCasing(_) => "Stage names should be lowercase",
            Rule::FromAsCasing { .. } => "The 'as' keyword should match the case of the 'from' keyword",
            Rule::NoEmptyContinuation => "Empty continuation lines will become errors in a future release",
            Rule::ConsistentInstructionCasing { .. } => {
                "All commands within the Dockerfile should use the same casing (either upper or lower)"
            }
            Rule::DuplicateStageName(_) => "Stage names should be unique",
            Rule::ReservedStageName(_) => "Reserved words should not be used as stage names",
            Rule::JsonArgsRecommended(_) => {
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
            }
            Rule::MaintainerDeprecated => {
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
            }
            Rule::UndefinedArgInFrom { .. } => "FROM command must use declared ARGs",
            Rule::WorkdirRelativePath(_) => {
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
            }
            Rule::UndefinedVar { .. } => "Variables should be defined before their use",
            Rule::MultipleInstructionsDisallowed(_) => {
                "Multiple instructions of the same type should not be used in the same stage"
            }
            Rule::LegacyKeyValueFormat(_) => {
                "Legacy key/value format with whitespace separator should not be used"
            }
            Rule::InvalidBaseImagePlatform { .. } => {
                "Base image platform does not match expected target platform"
            }
            Rule::RedundantTargetPlatform(_) => {
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
            }
            Rule::SecretsUsedInArgOrEnv { .. } => {
                "Sensitive data should not be used in the ARG or ENV commands"
            }
            Rule::InvalidDefaultArgInFrom(_) => {
                "Default value for global ARG results in an empty or invalid base image name"
            }
            Rule::FromPlatformFlagConstDisallowed(_) => {
                "FROM --platform flag should not use a constant value"
            }
            Rule::CopyIgnoredFile { .. } => "Attempting to Copy file that is excluded by .dockerignore",
            Rule::InvalidDefinitionDescription { .. } => {
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment."
            }
            Rule::ExposeProtoCasing(_) => "Protocol in EXPOSE instruction should be lowercase",
            Rule::ExposeInvalidFormat(_) => {
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
            }
        }
    }

    /// What is wrong here.
    pub(crate) fn message(&self) -> String {
        match self {
            Rule::StageNameCasing(name) => format!("Stage name '{name}' should be lowercase"),
            Rule::FromAsCasing { from, as_word } => {
                format!("'{as_word}' and '{from}' keywords' casing do not match")
            }
            Rule::NoEmptyContinuation => "Empty continuation line".to_string(),
            Rule::ConsistentInstructionCasing { command, casing } => {
                format!("Command '{command}' should match the case of the command majority ({casing})")
            }
            Rule::DuplicateStageName(name) => {
                format!("Duplicate stage name {}, stage names should be unique", quote(name))
            }
            Rule::ReservedStageName(name) => {
                format!("Stage name should not use the same name as reserved stage {}", quote(name))
            }
            Rule::JsonArgsRecommended(name) => {
                format!(
                    "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                )
            }
            Rule::MaintainerDeprecated => {
                "Maintainer instruction is deprecated in favor of using label".to_string()
            }
            Rule::UndefinedArgInFrom { name, hint } => {
                let hint = hint.as_ref().map(|h| format!(" (did you mean {h}?)")).unwrap_or_default();
                format!("FROM argument '{name}' is not declared{hint}")
            }
            Rule::WorkdirRelativePath(path) => {
                format!(
                    "Relative workdir {} can have unexpected results if the base image changes",
                    quote(path)
                )
            }
            Rule::UndefinedVar { name, hint } => {
                let hint = hint.as_ref().map(|h| format!(" (did you mean ${h}?)")).unwrap_or_default();
                format!("Usage of undefined variable '${name}'{hint}")
            }
            Rule::MultipleInstructionsDisallowed(name) => format!(
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            ),
            Rule::LegacyKeyValueFormat(name) => {
                format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format")
            }
            Rule::InvalidBaseImagePlatform { image, expected, actual } => format!(
                "Base image {image} was pulled with platform {}, expected {} for current build",
                quote(actual),
                quote(expected)
            ),
            Rule::RedundantTargetPlatform(var) => {
                format!(
                    "Setting platform to predefined {var} in FROM is redundant as this is the default behavior"
                )
            }
            Rule::SecretsUsedInArgOrEnv { instruction, key } => {
                format!(
                    "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
                    quote(key)
                )
            }
            Rule::InvalidDefaultArgInFrom(base) => {
                format!("Default value for ARG {base} results in empty or invalid base image name")
            }
            Rule::FromPlatformFlagConstDisallowed(p) => {
                format!("FROM --platform flag should not use constant value {}", quote(p))
            }
            Rule::CopyIgnoredFile { command, file } => {
                format!("Attempting to {command} file {} that is excluded by .dockerignore", quote(file))
            }
            Rule::InvalidDefinitionDescription { instruction, name } => {
                format!("Comment for {instruction} should follow the format: `# {name} <description>`")
            }
            Rule::ExposeProtoCasing(port) => {
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase")
            }
            Rule::ExposeInvalidFormat(port) => {
                format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                )
            }
        }
    }

    /// Where to read on; one rule has no page.
    pub(crate) fn url(&self) -> String {
        if matches!(self, Rule::InvalidBaseImagePlatform { .. }) {
            return String::new();
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{}/", kebab(self.name()))
    }
}

/// `JSONArgsRecommended` becomes `json-args-recommended`.
fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        let next_is_lower = chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let after_lower = i > 0 && chars[i - 1].is_ascii_lowercase();
        if i > 0 && c.is_ascii_uppercase() && (after_lower || next_is_lower) {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_known_names() {
        for (name, want) in [
            ("JSONArgsRecommended", "json-args-recommended"),
            ("FromAsCasing", "from-as-casing"),
            ("SecretsUsedInArgOrEnv", "secrets-used-in-arg-or-env"),
        ] {
            assert_eq!(kebab(name), want);
        }
    }
}
