//! Rates and stages as people write them: `1000`, `100:5000:60s`, a file of stages. Pure.

use weft_transport::units::parse_duration;

use crate::schedule::{Course, Stage};

/// Reads `1000`, `0.5` or `1000/s`: requests per second.
///
/// # Errors
/// A text that says what to write. The range is checked with the stage that uses it.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err(format!(
            "{text:?} is no rate; write requests per second, for example 1000 or 0.5"
        )),
    }
}

/// Reads `FROM:TO:LENGTH`, for example `100:5000:60s`, or `RATE:LENGTH` for a steady rate.
///
/// # Errors
/// A text that says what to write.
pub fn parse_stage(text: &str) -> Result<Stage, String> {
    let help = |why: String| format!("{why}; a stage is FROM:TO:LENGTH, for example 100:5000:60s");
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let (from, to, length) = match parts.as_slice() {
        [rate, length] => (rate, rate, length),
        [from, to, length] => (from, to, length),
        _ => return Err(help(format!("{text:?} has {} parts", parts.len()))),
    };
    let stage = Stage {
        from: parse_rate(from).map_err(help)?,
        to: parse_rate(to).map_err(help)?,
        length: parse_duration(length).map_err(|error| help(error.to_string()))?,
    };
    // Alone, it must be runnable: the error can then name the text.
    Course::new(vec![stage]).map_err(|error| help(format!("{text:?}: {error}")))?;
    Ok(stage)
}

/// Reads a file of stages: one on each line, `#` begins a comment.
///
/// # Errors
/// The number of the line, and what is wrong with it.
pub fn parse_stages(text: &str) -> Result<Course, String> {
    let mut stages = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let stage = parse_stage(line);
            stages.push(stage.map_err(|error| format!("line {}: {error}", index + 1))?);
        }
    }
    Course::new(stages).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_numbers_per_second() {
        assert_eq!(parse_rate("1000"), Ok(1000.0));
        assert_eq!(parse_rate("0.5/s"), Ok(0.5));
        for wrong in ["", "fast", "-1", "nan", "inf", "10/m"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stage_has_a_begin_an_end_and_a_length() {
        let stage = |from, to, length| Stage {
            from,
            to,
            length: Duration::from_secs(length),
        };
        assert_eq!(parse_stage("100:5000:60s"), Ok(stage(100.0, 5000.0, 60)));
        assert_eq!(parse_stage("10:1m"), Ok(stage(10.0, 10.0, 60)));
        for wrong in ["", "1", "1:2:3:4", "1:2:3", "a:2:3s", "0:0:5s", "1:1:0s"] {
            let error = parse_stage(wrong).unwrap_err();
            assert!(error.contains("100:5000:60s"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_file_of_stages_names_the_line_that_is_wrong() {
        let course = parse_stages("# warm\n0:100:10s\n\n100:1m # hold\n").unwrap();
        assert_eq!(course.length(), Duration::from_secs(70));
        let error = parse_stages("0:100:10s\nnonsense\n").unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
        assert!(parse_stages("# nothing\n").is_err());
    }
}
