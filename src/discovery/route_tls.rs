//! What happens to TLS on the route of a router in tags.

use super::tags::RouterTls;
use crate::name::quoted;
use crate::snapshot::service::ServiceTls;

/// What happens to TLS, and why it cannot. Traefik's names of option sets: `NAME@PROVIDER`, and `default`.
pub(super) fn service_tls(tls: &RouterTls) -> (ServiceTls, Option<String>) {
    if tls.passthrough {
        return (ServiceTls::PassThrough, None);
    }
    let broken = |reason| (ServiceTls::Terminate(None), Some(reason));
    let Some(options) = &tls.options else {
        return (ServiceTls::Terminate(None), None);
    };
    match options.rsplit_once('@') {
        Some(("default", "file")) => (ServiceTls::Terminate(None), None),
        Some((name, "file")) => (ServiceTls::Terminate(Some(name.to_owned())), None),
        Some((_, provider)) => broken(format!(
            "the option set {} is of the provider {}: only those of the file can be had, as in `NAME@file`",
            quoted(options),
            quoted(provider)
        )),
        None if options == "default" => (ServiceTls::Terminate(None), None),
        None => broken(format!(
            "the option set {} would be one of tags, which cannot define any: write `NAME@file`",
            quoted(options)
        )),
    }
}
