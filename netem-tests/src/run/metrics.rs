//! The metrics of a sidecar, read from its Prometheus exposition. Pure.

/// One scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Exposition {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Exposition {
    /// Reads the text format (0.0.4); other lines are skipped.
    pub(super) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self {
            samples: lines.filter_map(sample).collect(),
        }
    }

    /// The sum over all series of `name` that have `labels`. A series that was never counted is absent, so no
    /// series counts as 0.
    pub(super) fn sum(&self, name: &str, labels: &[(String, String)]) -> f64 {
        let matching = self.samples.iter().filter(|sample| {
            sample.name == name && labels.iter().all(|label| sample.labels.contains(label))
        });
        matching.map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, Vec::new()),
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

/// `a="x",b="y"`, with `\\`, `\"` and `\n` in values.
fn labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_the_labels_are_summed_and_absent_ones_are_zero() {
        let text = "# HELP x_total y\nx_total{a=\"1\",b=\"q\\\"},\"} 2\nx_total{a=\"2\",b=\"\"} 3\ny 4.5\nbroken{ 1\n";
        let scrape = Exposition::read(text);
        let label = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
        assert_eq!(scrape.sum("x_total", &[]), 5.0);
        assert_eq!(scrape.sum("x_total", &label("a", "2")), 3.0);
        assert_eq!(scrape.sum("x_total", &label("b", "q\"},")), 2.0);
        assert_eq!(scrape.sum("y", &[]), 4.5);
        assert_eq!(scrape.sum("z", &[]), 0.0);
    }
}
