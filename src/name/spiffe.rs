//! Who a workload of a mesh is: SPIFFE IDs, and the services of Consul that have them.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::NameError;

/// The longest ID that implementations must support (SPIFFE-ID §2.3), in bytes.
const LONGEST: usize = 2048;

/// What Go's `net/url` escapes in a part of a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// The SPIFFE ID of a workload, `spiffe://TRUST-DOMAIN/PATH`: what its certificate's URI SAN must equal, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// Parses an ID (SPIFFE-ID §2). A path may hold any visible ASCII but `?` and `#`: Consul escapes what else is in
    /// a service's name with `%`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = |why: &str| NameError(format!("{text:?} is no SPIFFE ID: {why}"));
        // Before the text is quoted: a stranger may have written it.
        if text.len() > LONGEST {
            return Err(NameError(format!(
                "a SPIFFE ID of {} bytes is too long: at most {LONGEST}",
                text.len()
            )));
        }
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return Err(wrong("it does not begin with spiffe://"));
        };
        let Some((domain, path)) = rest.split_once('/') else {
            return Err(wrong("it has no path: a trust domain alone is nobody"));
        };
        if !is_trust_domain(domain) {
            return Err(wrong(
                "its trust domain is not made of lower-case letters, digits, `.`, `-` and `_`",
            ));
        }
        if path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(wrong("its path has an empty part, `.` or `..`"));
        }
        if !path
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#')
        {
            return Err(wrong("its path holds what no path of one may hold"));
        }
        Ok(Self(text.into()))
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Who answers for it.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }

    /// The service of Consul's mesh that it belongs to, escaped as in the ID; `None` if it is no service's.
    pub fn service(&self) -> Option<&str> {
        let (_, service) = self.0.rsplit_once("/svc/")?;
        Some(service)
    }

    /// The namespace of Consul that it is in; `None` if it says none.
    pub fn namespace(&self) -> Option<&str> {
        let (_, rest) = self.0.split_once("/ns/")?;
        rest.split('/').next()
    }

    /// Whether it is that of a service of Consul's, of this name, in whatever namespace and datacenter.
    pub fn is_service(&self, name: &str) -> bool {
        self.service() == Some(&escaped(name))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service of Consul's mesh, whatever the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeshService {
    /// Its partition (Consul Enterprise); `None` is the default one.
    pub partition: Option<Arc<str>>,
    /// Its namespace; `default` without the enterprise edition.
    pub namespace: Arc<str>,
    /// Its datacenter.
    pub datacenter: Arc<str>,
    /// Its name, in the case in which it was registered.
    pub service: Arc<str>,
}

impl MeshService {
    /// The ID that its sidecars prove (Consul's `agent/connect/uri_service.go`).
    pub fn spiffe_id(&self, trust_domain: &str) -> Result<SpiffeId, NameError> {
        if !is_trust_domain(trust_domain) {
            return Err(NameError(format!("{trust_domain:?} is no trust domain")));
        }
        let parts = [&self.namespace, &self.datacenter, &self.service];
        let mut all = parts.into_iter().chain(&self.partition);
        if all.any(|part| part.contains('/')) {
            return Err(NameError(format!(
                "{:?} cannot be told apart in a SPIFFE ID: it holds a `/`",
                &*self.service
            )));
        }
        let [namespace, datacenter, service] = parts.map(|part| escaped(part));
        let partition = self.partition.iter();
        let partition: String = partition
            .map(|part| format!("/ap/{}", escaped(part)))
            .collect();
        SpiffeId::parse(&format!(
            "spiffe://{trust_domain}{partition}/ns/{namespace}/dc/{datacenter}/svc/{service}"
        ))
    }

    /// How intentions name it: with its namespace and partition (Consul Enterprise) where they are not the default ones.
    pub fn intention_name(&self) -> String {
        let Self {
            partition,
            namespace,
            service,
            ..
        } = self;
        match partition {
            Some(partition) => format!("{partition}/{namespace}/{service}"),
            None if &**namespace == "default" => service.to_string(),
            None => format!("{namespace}/{service}"),
        }
    }

    /// The name that its gateways route by (Consul's `agent/connect/sni.go`).
    pub fn server_name(&self, trust_domain: &str) -> String {
        let Self {
            partition,
            namespace,
            datacenter,
            service,
        } = self;
        match partition {
            None => format!("{service}.{namespace}.{datacenter}.internal.{trust_domain}"),
            Some(partition) => {
                format!("{service}.{namespace}.{partition}.{datacenter}.internal-v1.{trust_domain}")
            }
        }
    }
}

/// SPIFFE-ID §2.1; of at most 255 bytes.
fn is_trust_domain(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed)
}

/// A part of a path as Go's `net/url` writes it, which is what Consul puts into certificates.
fn escaped(part: &str) -> String {
    utf8_percent_encode(part, ESCAPED).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DOMAIN: &str = "11111111-2222-3333-4444-555555555555.consul";

    fn service(name: &str) -> MeshService {
        MeshService {
            partition: None,
            namespace: "default".into(),
            datacenter: "dc1".into(),
            service: name.into(),
        }
    }

    #[test]
    fn an_id_is_taken_as_it_is_written_and_knows_its_trust_domain() {
        for text in [
            "spiffe://example.org/a",
            "spiffe://example.org/ns/default/dc/dc1/svc/Web",
            "spiffe://example.org/a%20b",
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!(id.as_str(), text);
            assert_eq!(id.trust_domain(), "example.org");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_its_reason() {
        for (text, why) in [
            ("https://example.org/a", "does not begin"),
            ("SPIFFE://example.org/a", "does not begin"),
            ("spiffe:///a", "trust domain"),
            ("spiffe://Example.org/a", "trust domain"),
            ("spiffe://user@example.org/a", "trust domain"),
            ("spiffe://example.org:80/a", "trust domain"),
            ("spiffe://example.org", "no path"),
            ("spiffe://example.org/", "empty part"),
            ("spiffe://example.org/a//b", "empty part"),
            ("spiffe://example.org/a/../b", "`..`"),
            ("spiffe://example.org/a?b", "its path holds"),
            ("spiffe://example.org/a#b", "its path holds"),
            ("spiffe://example.org/a b", "its path holds"),
            ("spiffe://example.org/a\0", "its path holds"),
            ("spiffe://example.org/ä", "its path holds"),
        ] {
            let error = SpiffeId::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(LONGEST));
        assert!(SpiffeId::parse(&long).is_err());
        assert!(SpiffeId::parse(&long[..LONGEST]).is_ok());
        let long = "\u{7}".repeat(LONGEST + 1);
        assert!(SpiffeId::parse(&long).unwrap_err().to_string().len() < 100);
    }

    #[test]
    fn a_service_of_consul_has_the_id_and_the_server_name_that_consul_gives_it() {
        let web = service("web");
        assert_eq!(
            web.spiffe_id(DOMAIN).unwrap().as_str(),
            format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web")
        );
        assert_eq!(
            web.server_name(DOMAIN),
            format!("web.default.dc1.internal.{DOMAIN}")
        );
        let odd = service("we b%é").spiffe_id(DOMAIN).unwrap();
        assert!(odd.as_str().ends_with("/svc/we%20b%25%C3%A9"), "{odd}");
        assert_eq!(odd.service(), Some("we%20b%25%C3%A9"));
        let gateway = format!("spiffe://{DOMAIN}/gateway/mesh/dc/dc1");
        assert_eq!(SpiffeId::parse(&gateway).unwrap().service(), None);
    }

    #[test]
    fn what_is_not_in_the_default_namespace_is_named_with_its_own() {
        let mut web = service("web");
        assert_eq!(web.intention_name(), "web");
        assert_eq!(web.spiffe_id(DOMAIN).unwrap().namespace(), Some("default"));
        web.namespace = "team".into();
        assert_eq!(web.intention_name(), "team/web");
        web.partition = Some("west".into());
        assert_eq!(web.intention_name(), "west/team/web");
        assert_eq!(web.spiffe_id(DOMAIN).unwrap().namespace(), Some("team"));
        let agent = SpiffeId::parse("spiffe://example.org/agent/web").unwrap();
        assert_eq!(agent.namespace(), None);
    }

    #[test]
    fn an_id_knows_the_name_of_its_service() {
        for name in ["web", "we b%é", "svc"] {
            let id = service(name).spiffe_id(DOMAIN).unwrap();
            assert!(id.is_service(name), "{id}");
            assert!(!id.is_service("we"), "{id}");
        }
        let web = service("web").spiffe_id(DOMAIN).unwrap();
        assert!(!web.is_service("Web") && !web.is_service("x/svc/web"));
        let other = SpiffeId::parse("spiffe://example.org/agent/web").unwrap();
        assert!(!other.is_service("web"));
    }

    #[test]
    fn no_name_of_a_service_passes_for_another_path() {
        assert!(service("web/svc/other").spiffe_id(DOMAIN).is_err());
        assert!(service("..").spiffe_id(DOMAIN).is_err());
        assert!(service("web").spiffe_id("a/b").is_err());
    }
}
