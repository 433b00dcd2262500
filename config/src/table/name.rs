//! Names of services: two DNS labels, written `orders.shop`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The name of a service within the mesh: `name.namespace`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName {
    /// The namespace, a DNS-1123 label.
    pub namespace: String,
    /// The name within it, a DNS-1123 label.
    pub name: String,
}

impl ServiceName {
    /// Checks both labels.
    ///
    /// # Errors
    /// When either is no DNS-1123 label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        check_label(name)?;
        check_label(namespace)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Reads `orders` (in `default_namespace`) or `orders.shop`.
    ///
    /// # Errors
    /// When a part is no DNS-1123 label or there are more than two.
    pub fn parse_in(default_namespace: &str, text: &str) -> Result<Self, NameError> {
        match text.split_once('.') {
            Some((name, namespace)) => Self::new(namespace, name),
            None => Self::new(default_namespace, text),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, namespace) = text.split_once('.').ok_or(NameError::NoNamespace)?;
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.to_string()
    }
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no `.namespace`.
    #[error("a service is named SERVICE.NAMESPACE, as in orders.shop")]
    NoNamespace,
    /// A label is empty.
    #[error("a name must not be empty")]
    Empty,
    /// A label has more than 63 characters.
    #[error("a name has at most {} characters", limits::LABEL_LENGTH_MAX)]
    TooLong,
    /// A subdomain has more than 253 characters.
    #[error(
        "a name of several labels has at most {} characters",
        limits::SUBDOMAIN_LENGTH_MAX
    )]
    SubdomainTooLong,
    /// A label has other characters than a DNS-1123 label may have.
    #[error("a name consists of a-z, 0-9 and -, and begins and ends with a letter or digit")]
    Characters,
}

/// Checks a DNS-1123 label (RFC 1123 section 2.1, lower case as Kubernetes wants it).
///
/// # Errors
/// Says which rule it breaks.
pub fn check_label(text: &str) -> Result<(), NameError> {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(NameError::Empty);
    };
    if bytes.len() > limits::LABEL_LENGTH_MAX {
        return Err(NameError::TooLong);
    }
    if !plain(first) || !plain(last) || !bytes.iter().all(|byte| plain(byte) || *byte == b'-') {
        return Err(NameError::Characters);
    }
    Ok(())
}

/// Checks a DNS-1123 subdomain: labels with dots between them, together at most 253 characters (RFC 1123
/// section 2.1; names of objects in Kubernetes).
///
/// # Errors
/// Says which rule it breaks.
pub fn check_subdomain(text: &str) -> Result<(), NameError> {
    if text.len() > limits::SUBDOMAIN_LENGTH_MAX {
        return Err(NameError::SubdomainTooLong);
    }
    text.split('.').try_for_each(check_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_namespace_takes_the_default() {
        let name = ServiceName::parse_in("shop", "orders").unwrap();
        assert_eq!(name.to_string(), "orders.shop");
        assert_eq!(ServiceName::parse_in("other", "orders.shop").unwrap(), name);
    }

    #[test]
    fn a_subdomain_is_labels_with_dots_between_them() {
        for good in ["a", "bookinfo.v1", "a.b-c.d0"] {
            assert_eq!(check_subdomain(good), Ok(()), "{good}");
        }
        let long = ["a".repeat(63).as_str(); 4].join(".") + ".a";
        assert_eq!(check_subdomain(&long), Err(NameError::SubdomainTooLong));
        for bad in ["", ".a", "a.", "a..b", "A.b", "a_b.c"] {
            assert!(check_subdomain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_follow_dns_1123() {
        for good in ["a", "0", "orders-v1", &"a".repeat(63)] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "ä",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_third_label_is_refused() {
        assert!("orders.shop.svc".parse::<ServiceName>().is_err());
        assert_eq!("orders".parse::<ServiceName>(), Err(NameError::NoNamespace));
    }
}
