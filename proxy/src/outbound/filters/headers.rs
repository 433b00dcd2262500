//! Changes of header fields (Gateway API v1, HTTPHeaderFilter). Pure, and in place.
//!
//! What frames a message, ends at the next hop, or is the mesh's own no route may change, and `Host` only a
//! rewrite: such entries are passed over, as a table of another version may have them.

use http::header::HOST;
use http::{HeaderMap, HeaderName};
use weft_config::table::HeaderChanges;

use crate::http::fields::is_reserved;

/// Of a request, as the application wrote it.
pub(super) fn of_request(headers: &mut HeaderMap, changes: &HeaderChanges) {
    change(headers, changes, |name| *name == HOST || is_reserved(name));
}

/// Of a response, as the application will read it. How a gRPC call ended is the far side's to say, and stands
/// among these fields where it has nothing else to say.
pub(super) fn of_response(headers: &mut HeaderMap, changes: &HeaderChanges) {
    const OF_CALLS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
    change(headers, changes, |name| {
        OF_CALLS.contains(&name.as_str()) || is_reserved(name)
    });
}

fn change(
    headers: &mut HeaderMap,
    changes: &HeaderChanges,
    is_reserved: impl Fn(&HeaderName) -> bool,
) {
    let HeaderChanges { set, add, remove } = changes;
    for (name, value) in set.iter().filter(|(name, _)| !is_reserved(&name.0)) {
        headers.insert(name.0.clone(), value.value().clone());
    }
    for (name, value) in add.iter().filter(|(name, _)| !is_reserved(&name.0)) {
        headers.append(name.0.clone(), value.value().clone());
    }
    for name in remove.iter().filter(|name| !is_reserved(&name.0)) {
        headers.remove(&name.0);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use weft_config::table::{FieldName, FieldValue};

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(FieldName, FieldValue)> {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = FieldName::try_from((*name).to_owned()).unwrap();
            (name, FieldValue::try_from((*value).to_owned()).unwrap())
        });
        pairs.collect()
    }

    fn changes(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderChanges {
        let name = |name: &&str| FieldName::try_from((*name).to_owned()).unwrap();
        HeaderChanges {
            set: pairs(set),
            add: pairs(add),
            remove: remove.iter().map(name).collect(),
        }
    }

    /// The lines of each name, joined as the suite compares them.
    fn changed(
        by: fn(&mut HeaderMap, &HeaderChanges),
        fields: &[(&'static str, &'static str)],
        changes: &HeaderChanges,
    ) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        by(&mut headers, changes);
        let mut names: Vec<&HeaderName> = headers.keys().collect();
        names.sort_by_key(|name| name.as_str());
        let joined = names.into_iter().map(|name| {
            let lines = headers.get_all(name).iter();
            let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap()).collect();
            (name.to_string(), lines.join(","))
        });
        joined.collect()
    }

    #[test]
    fn fields_are_set_added_after_what_is_there_and_removed_in_any_case() {
        let multiple = changes(
            &[("X-Set-1", "s1"), ("X-Set-2", "s2")],
            &[("X-Add-1", "a1"), ("X-Add-2", "a2"), ("X-Add-3", "a3")],
            &["X-Rm-1", "X-Rm-2"],
        );
        let set = changes(&[("X-Set", "S")], &[], &[]);
        let add = changes(&[], &[("X-Add", "A")], &[]);
        let remove = changes(&[], &[], &["X-Rm"]);
        type Case<'a> = (
            &'a str,
            &'a HeaderChanges,
            &'a [(&'static str, &'static str)],
            &'a [(&'a str, &'a str)],
        );
        let cases: &[Case<'_>] = &[
            (
                "M6 /set",
                &set,
                &[("other", "o")],
                &[("other", "o"), ("x-set", "S")],
            ),
            (
                "M6 /set",
                &set,
                &[("x-set", "old"), ("x-set", "older")],
                &[("x-set", "S")],
            ),
            ("M6 /add", &add, &[], &[("x-add", "A")]),
            ("M6 /add", &add, &[("x-add", "old")], &[("x-add", "old,A")]),
            ("M6 /remove", &remove, &[("x-rm", "r")], &[]),
            (
                "M6 /multiple",
                &multiple,
                &[
                    ("x-set-2", "q"),
                    ("x-add-2", "q"),
                    ("x-rm-2", "q"),
                    ("other", "o"),
                ],
                &[
                    ("other", "o"),
                    ("x-add-1", "a1"),
                    ("x-add-2", "q,a2"),
                    ("x-add-3", "a3"),
                    ("x-set-1", "s1"),
                    ("x-set-2", "s2"),
                ],
            ),
        ];
        for (id, changes, before, after) in cases {
            for by in [
                of_request as fn(&mut HeaderMap, &HeaderChanges),
                of_response,
            ] {
                let after: Vec<_> = after
                    .iter()
                    .map(|(n, v)| ((*n).into(), (*v).into()))
                    .collect();
                assert_eq!(changed(by, before, changes), after, "{id}: {before:?}");
            }
        }
    }

    #[test]
    fn what_is_the_meshs_or_frames_the_message_no_route_changes() {
        let names = [
            "weft-client-id",
            "weft_client_id",
            "connection",
            "te",
            "content-length",
            "transfer-encoding",
            "upgrade",
            "via",
            "expect",
            "keep-alive",
        ];
        for name in names {
            let changes = changes(&[(name, "1")], &[], &[]);
            assert_eq!(changed(of_request, &[], &changes), [], "{name}");
            assert_eq!(changed(of_response, &[], &changes), [], "{name}");
        }
        let removing = changes(&[], &[], &["content-length", "via", "grpc-status"]);
        let kept = changed(
            of_response,
            &[("via", "1"), ("content-length", "2"), ("grpc-status", "0")],
            &removing,
        );
        assert_eq!(kept.len(), 3);
        let host = changes(&[("host", "a"), ("grpc-status", "0")], &[], &[]);
        assert_eq!(
            changed(of_request, &[], &host),
            [("grpc-status".into(), "0".into())]
        );
        assert_eq!(
            changed(of_response, &[], &host),
            [("host".into(), "a".into())]
        );
    }
}
