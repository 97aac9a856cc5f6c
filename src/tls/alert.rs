//! What a server means by an alert in place of a handshake (RFC 8446 §6.2), for those who tell it to a person.

use std::fmt;

use rustls::AlertDescription;

/// What a server says by an alert. Of a gateway of ours it is what `docs/status-frame.md` has; of others most likely so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It has no route for the name, or no certificate.
    NoRoute,
    /// It does not let this client in: its address, mostly.
    NotLetIn,
    /// It has as many connections as it takes.
    Full,
    /// It cannot serve the name: the route is broken.
    Broken,
    /// It takes none of the protocols that are offered.
    NoProtocol,
    /// It requires a client certificate.
    CertificateRequired,
    /// The client certificate has expired.
    CertificateExpired,
    /// It does not accept the client certificate.
    CertificateRefused,
    /// Nothing of these: no version or cipher in common, or a defect.
    Other,
}

impl Meaning {
    /// What an alert means.
    pub fn of(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        match alert {
            Alert::UnrecognisedName => Self::NoRoute,
            Alert::AccessDenied => Self::NotLetIn,
            Alert::UserCanceled => Self::Full,
            Alert::InternalError => Self::Broken,
            Alert::NoApplicationProtocol => Self::NoProtocol,
            Alert::CertificateRequired | Alert::NoCertificate => Self::CertificateRequired,
            Alert::CertificateExpired => Self::CertificateExpired,
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError => Self::CertificateRefused,
            _ => Self::Other,
        }
    }
}

/// An alert as it is named in RFC 8446 §6: `UnknownCA` is `alert unknown_ca`.
#[derive(Clone, Copy, Debug)]
pub struct Named(pub AlertDescription);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            AlertDescription::Unknown(number) => return write!(f, "alert {number}"),
            // It is spelled in the other way there.
            AlertDescription::UnrecognisedName => "UnrecognizedName".to_owned(),
            alert => format!("{alert:?}"),
        };
        f.write_str("alert ")?;
        let mut after_lower = false;
        for c in name.chars() {
            if c.is_ascii_uppercase() && after_lower {
                f.write_str("_")?;
            }
            after_lower = c.is_ascii_lowercase();
            write!(f, "{}", c.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_named_as_the_rfc_names_them() {
        for (alert, name) in [
            (
                AlertDescription::UnrecognisedName,
                "alert unrecognized_name",
            ),
            (AlertDescription::UnknownCA, "alert unknown_ca"),
            (AlertDescription::UserCanceled, "alert user_canceled"),
            (AlertDescription::Unknown(7), "alert 7"),
        ] {
            assert_eq!(Named(alert).to_string(), name);
        }
    }

    /// No one of those is a defect of the gateway that sends it.
    #[test]
    fn every_alert_that_the_document_explains_has_a_meaning_here() {
        let document = include_str!("../../docs/status-frame.md");
        let table = document
            .split("| alert | what Portcullis means by it |")
            .nth(1);
        let table = table.and_then(|rest| rest.split("\n\n").next());
        for number in 0..=u8::MAX {
            let alert = AlertDescription::from(number);
            let name = Named(alert).to_string().replace("alert ", "`") + "`";
            if table.is_some_and(|table| table.contains(&name)) {
                assert_ne!(Meaning::of(alert), Meaning::Other, "{name}");
            }
        }
        assert!(table.is_some_and(|table| table.contains("`unrecognized_name`")));
    }
}
