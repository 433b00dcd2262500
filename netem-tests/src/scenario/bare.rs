//! Only the network of a scenario, for labs in which people try things by hand: a file needs no loads and no
//! assertions for it. Pure.

use serde::Deserialize;
use weft_config::settings::yaml_message;
use weft_config::yaml;

use super::ScenarioError;
use super::check::Checker;
use super::network::topology;
use super::parse::line;
use super::raw::RawTopology;
use super::traces::ReadFile;
use crate::lab::Topology;

/// The contents of a lab.
#[derive(Clone, Debug)]
pub struct Network {
    /// Hosts, routers and links.
    pub topology: Topology,
    /// The file's `seed`, if it has one.
    pub seed: Option<u64>,
}

/// The fields that matter here; [`super::parse()`] reads the others.
#[derive(Deserialize)]
struct RawNetwork {
    topology: RawTopology,
    seed: Option<u64>,
}

/// Reads `topology` and `seed` from `text`, which came from `origin` (a file's path, for messages); `files`
/// reads those that it names.
///
/// # Errors
/// All mistakes of the topology, each with its line.
pub fn parse_network(
    origin: &str,
    text: &str,
    files: ReadFile<'_>,
) -> Result<Network, ScenarioError> {
    let one = |line: String| ScenarioError { lines: vec![line] };
    let options = serde_saphyr::options! { with_snippet: false };
    let raw: RawNetwork = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        one(format!("{origin}:{line}: {}", yaml_message(&error)))
    })?;
    let mut checker = Checker::new(files);
    match topology(&mut checker, raw.topology) {
        Some(topology) if checker.problems.is_empty() => Ok(Network {
            topology,
            seed: raw.seed,
        }),
        Some(_) | None => {
            let root = yaml::documents(text).ok().and_then(|mut all| all.pop());
            let lines = checker.problems.iter().map(|problem| match &root {
                Some(root) => line(origin, root, problem),
                None => format!("{origin}: {}: {}", problem.field, problem.message),
            });
            Err(ScenarioError {
                lines: lines.collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_network(origin: &str, text: &str) -> Result<Network, ScenarioError> {
        super::parse_network(origin, text, &|_| Err("there are no files".to_owned()))
    }

    #[test]
    fn a_topology_is_enough() {
        let text = "topology:\n  hosts: [a, b]\n  links: { wire: { between: [a, b] } }\n";
        let network = parse_network("pair.yaml", text).unwrap();
        assert_eq!(network.topology.nodes().len(), 2);
        assert_eq!(network.seed, None);
    }

    #[test]
    fn mistakes_have_their_line() {
        let text = "seed: 7\ntopology:\n  hosts: [a, b]\n  links:\n    wire:\n      between: [a, b]\n      set: { loss: 5 }\n";
        let error = parse_network("pair.yaml", text).unwrap_err().to_string();
        assert!(error.starts_with("pair.yaml:7: "), "{error}");
        assert!(error.contains("`5%`"), "{error}");
        let error = parse_network("pair.yaml", "seed: 7\n").unwrap_err();
        assert!(error.to_string().contains("topology"), "{error}");
    }
}
