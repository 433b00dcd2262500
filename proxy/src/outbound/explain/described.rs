//! What filters do, in lines for people. Pure.

use weft_config::table::{Filters, HeaderChanges};

pub(super) fn described(filters: &Filters) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(cors) = &filters.cors {
        lines.push(format!("CORS: allows {}", cors.origins.join(", ")));
    }
    changes(&mut lines, "request", &filters.request_headers);
    changes(&mut lines, "response", &filters.response_headers);
    if let Some(host) = &filters.rewrite.host {
        lines.push(format!("URLRewrite: the host becomes {host}"));
    }
    if filters.rewrite.path.is_some() {
        lines.push("URLRewrite: the path changes".to_owned());
    }
    for mirror in &filters.mirrors {
        let percent =
            f64::from(mirror.share.numerator) * 100.0 / f64::from(mirror.share.denominator);
        lines.push(format!(
            "RequestMirror: {}:{} gets a copy of {percent} % of the requests",
            mirror.service, mirror.port
        ));
    }
    lines
}

fn changes(lines: &mut Vec<String>, of: &str, changes: &HeaderChanges) {
    for (name, value) in &changes.set {
        lines.push(format!(
            "{of} header {name} is set to {}",
            String::from(value.clone())
        ));
    }
    for (name, value) in &changes.add {
        lines.push(format!(
            "{of} header {name} gets {}",
            String::from(value.clone())
        ));
    }
    for name in &changes.remove {
        lines.push(format!("{of} header {name} is removed"));
    }
}
