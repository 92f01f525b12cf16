//! `broker plugin new`: a crate that builds, passes its suite and can be loaded at once.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::{exit, print_report};

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Name of the crate, such as exchange-weather; a folder of this name is made
    #[arg(value_name = "NAME")]
    name: String,

    /// What the plugin is
    #[arg(long, value_enum)]
    kind: Kind,

    /// The folder in which that of the crate is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    path: PathBuf,

    /// Folder of plugin-api; without it, the one of the checkout that DIR is in, or else the registry
    #[arg(long, value_name = "DIR")]
    plugin_api: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An exchange type
    Exchange,
    /// An auth backend
    Auth,
    /// A storage
    Storage,
}

pub(super) fn new(args: &NewArgs) -> u8 {
    match written(args) {
        Ok(folder) => {
            let folder = folder.display();
            let library = file_name(&args.name);
            let report = format!(
                "{folder} is a plugin now:\n\n  cd {folder}\n  cargo test\n  cargo build --release\n  broker plugin inspect \
                 target/release/{library}\n  broker --topology example.yaml\n"
            );
            print_report(&report, exit::OK)
        }
        Err(Failure { text, code }) => {
            eprintln!("broker: {text}");
            code
        }
    }
}

struct Failure {
    text: String,
    code: u8,
}

/// Writes the crate and says where it is.
fn written(args: &NewArgs) -> Result<PathBuf, Failure> {
    let usage = |text: String| Failure { text, code: exit::USAGE };
    let name = &*args.name;
    let is_name = |name: &str| {
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && !name.contains("--")
            && name.len() <= NAME_BYTES_MAX
    };
    if !is_name(name) {
        return Err(usage(format!(
            "'{name}' is no name for a plugin: use small letters, digits and single dashes, such as exchange-weather"
        )));
    }
    let folder = args.path.join(name);
    let unwritable = |error: std::io::Error| Failure {
        text: format!("{} cannot be written: {error}", folder.display()),
        code: exit::IO,
    };
    if folder.exists() {
        return Err(usage(format!("{} is there already: take another name, or remove it", folder.display())));
    }
    let api = dependency(args).map_err(usage)?;
    let words = Words::new(name, args.kind, api);
    let (source, test, example) = match args.kind {
        Kind::Exchange => (
            include_str!("template/exchange.rs.in").to_owned(),
            include_str!("template/exchange.test.in"),
            include_str!("template/exchange.yaml.in"),
        ),
        Kind::Auth => (
            include_str!("template/auth.rs.in").to_owned(),
            include_str!("template/auth.test.in"),
            include_str!("template/auth.yaml.in"),
        ),
        Kind::Storage => {
            (storage_source(), include_str!("template/storage.test.in"), include_str!("template/storage.yaml.in"))
        }
    };
    std::fs::create_dir_all(folder.join("src")).map_err(unwritable)?;
    std::fs::create_dir_all(folder.join("tests")).map_err(unwritable)?;
    for (path, text) in [
        ("Cargo.toml", include_str!("template/Cargo.toml.in")),
        (".gitignore", include_str!("template/gitignore.in")),
        ("README.md", include_str!("template/README.md.in")),
        ("src/lib.rs", &source),
        ("tests/conformance.rs", test),
        ("example.yaml", example),
    ] {
        std::fs::write(folder.join(path), words.filled(text)).map_err(unwritable)?;
    }
    Ok(folder)
}

/// The storage in memory, under another name: a template that has passed the suite as long as the broker has.
fn storage_source() -> String {
    let source = include_str!("../../../../plugins/storage-memory/src/lib.rs");
    source
        .replace("MemoryType", "{struct}Type")
        .replace("Memory", "{struct}")
        .replace("\"memory\"", "\"{type}\"")
        .replace("Storage `memory`:", "Storage `{type}`:")
}

/// What stands for what in a template.
struct Words([(&'static str, String); 6]);

impl Words {
    fn new(name: &str, kind: Kind, api: String) -> Self {
        let (prefix, about) = match kind {
            Kind::Exchange => ("exchange-", "An exchange type"),
            Kind::Auth => ("auth-", "An auth backend"),
            Kind::Storage => ("storage-", "A storage"),
        };
        let short = name.strip_prefix(prefix).unwrap_or(name);
        let type_name = if kind == Kind::Exchange { format!("x-{short}") } else { short.to_owned() };
        Self([
            ("{name}", name.to_owned()),
            ("{crate}", name.replace('-', "_")),
            ("{type}", type_name),
            ("{struct}", camel_case(short)),
            ("{about}", about.to_owned()),
            ("{plugin-api}", api),
        ])
    }

    fn filled(&self, template: &str) -> String {
        let text = self.0.iter().fold(template.to_owned(), |text, (place, word)| text.replace(place, word));
        text.replace("{dependencies}\n", "")
    }
}

fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
    };
    let camel: String = name.split('-').map(word).collect();
    // A type cannot begin with a digit.
    if camel.starts_with(|c: char| c.is_ascii_digit()) { format!("Plugin{camel}") } else { camel }
}

/// The line of the manifest that names plugin-api.
fn dependency(args: &NewArgs) -> Result<String, String> {
    let is_there = |folder: &Path| folder.join("Cargo.toml").is_file() && folder.join("src/abi/stamp.rs").is_file();
    let line = |folder: &Path| {
        let real = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        format!("plugin-api = {{ path = {:?} }}", real.display().to_string())
    };
    if let Some(folder) = &args.plugin_api {
        if !is_there(folder) {
            return Err(format!("{} is not the folder of plugin-api", folder.display()));
        }
        return Ok(line(folder));
    }
    let start = std::path::absolute(&args.path).unwrap_or_else(|_| args.path.clone());
    let found = start.ancestors().map(|folder| folder.join("plugin-api")).find(|folder| is_there(folder));
    Ok(found.map_or_else(|| format!("plugin-api = \"{}\"", env!("CARGO_PKG_VERSION")), |folder| line(&folder)))
}

fn file_name(name: &str) -> String {
    format!("{}{}{}", std::env::consts::DLL_PREFIX, name.replace('-', "_"), std::env::consts::DLL_SUFFIX)
}

/// As long as the name in a plugin's stamp may be.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_of_a_template_stays_open() {
        let storage = storage_source();
        for (kind, source) in [
            (Kind::Exchange, include_str!("template/exchange.rs.in")),
            (Kind::Auth, include_str!("template/auth.rs.in")),
            (Kind::Storage, &*storage),
        ] {
            let words = Words::new("x-1-weather", kind, "plugin-api = \"1\"".into());
            for text in [source, include_str!("template/Cargo.toml.in"), include_str!("template/README.md.in")] {
                let filled = words.filled(text);
                for place in ["{name}", "{crate}", "{type}", "{struct}", "{about}", "{plugin-api}", "{dependencies}"] {
                    assert!(!filled.contains(place), "{kind:?}: {place} in\n{filled}");
                }
            }
        }
    }

    #[test]
    fn types_are_named_as_rust_names_them() {
        assert_eq!(camel_case("weather-by-area"), "WeatherByArea");
        assert_eq!(camel_case("3d"), "Plugin3d");
    }
}
