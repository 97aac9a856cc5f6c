//! The identity that Consul's agent gives to a service: its leaf and the mesh's roots, by two long polls.

mod stored;

use std::future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Heard, Keeper, PART, Trust};
use crate::api::consul::{Answer, Client, Error, Watch, null_is_default};
use crate::config::Secret;
use crate::log::escape;
use crate::snapshot::service::Change;
use crate::state::{GRACE, Opened, written};
use crate::status::State;
use crate::tls::mesh::{self, Leaf, PemText};

/// At least this often the clock is looked at: it may have been set, or the machine have slept.
const CLOCK: Duration = Duration::from_secs(600);

/// `/v1/agent/connect/ca/roots`. Intermediates are not read: a peer sends its own.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Roots {
    #[serde(default, deserialize_with = "null_is_default")]
    trust_domain: String,
    #[serde(default, deserialize_with = "null_is_default")]
    roots: Vec<Root>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Root {
    #[serde(default, deserialize_with = "null_is_default")]
    root_cert: String,
}

/// `/v1/agent/connect/ca/leaf/SERVICE`.
#[derive(Debug, serde::Deserialize)]
struct Issued {
    #[serde(default, rename = "CertPEM", deserialize_with = "null_is_default")]
    certificates: String,
    #[serde(rename = "PrivateKeyPEM", deserialize_with = "secret")]
    key: Secret,
    #[serde(default, rename = "ServiceURI", deserialize_with = "null_is_default")]
    uri: String,
}

/// Tells the identity that Consul gives to this service, and each that follows it, until nobody listens or it is to stop. What the
/// keeper has already is not told again. Returns the keeper, all of which has been told.
///
/// A token needs `service:write` on the service, which need not be registered. What Consul says that cannot be right, or
/// does not say, leaves the last identity as it is, and is told as the state of the [part](PART).
///
/// The last identity is kept in `state`. What was kept there before, if that is to be served with, is if Consul cannot be
/// heard at once.
pub async fn watch(
    client: Client,
    mut keeper: Keeper,
    state: Option<Opened>,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
) -> Keeper {
    let (service, namespace) = (keeper.service.clone(), keeper.namespace.clone());
    let (tell, mut heard) = mpsc::channel(1);
    let path = ["agent", "connect", "ca", "roots"];
    let roots = Watch::<Roots>::new(client.clone(), &path, &[]);
    let path = ["agent", "connect", "ca", "leaf", &service];
    // The partition is the agent's own, which alone it has certificates for.
    let within: Vec<_> = namespace.iter().map(|name| ("ns", name.as_str())).collect();
    let leaf = Watch::<Issued>::new(client, &path, &within);
    tokio::select! {
        () = follow(roots, |answer| Heard::Trust(trust(answer)), &tell) => {}
        () = follow(leaf, |answer| Heard::Leaf(own_leaf(answer, &service, namespace.as_deref())), &tell) => {}
        () = keep(&mut keeper, state, &mut heard, &changes, &stop) => {}
    }
    keeper
}

async fn follow<T: serde::de::DeserializeOwned + Send + 'static>(
    mut watch: Watch<T>,
    read: impl Fn(Result<Answer<T>, Error>) -> Heard,
    tell: &mpsc::Sender<Heard>,
) {
    loop {
        let answer = watch.next().await;
        let was_answered = answer.is_ok();
        let heard = read(answer);
        if was_answered && heard.is_trouble(SystemTime::now()) {
            watch.begin_anew();
        }
        if tell.send(heard).await.is_err() {
            return;
        }
    }
}

/// Takes in what is heard, and tells what changes by it, or by the clock.
async fn keep(
    keeper: &mut Keeper,
    state: Option<Opened>,
    heard: &mut mpsc::Receiver<Heard>,
    changes: &mpsc::Sender<Change>,
    stop: &CancellationToken,
) {
    let (part, mut stored) = stored::begin_with(state, keeper);
    let until = Instant::now() + GRACE;
    let mut told = None;
    // What the keeper has already has been told of.
    let mut told_identity = keeper.serving().cloned();
    let mut told_restored = None;
    let mut told_refused = false;
    loop {
        let now = SystemTime::now();
        if (until <= Instant::now() || keeper.trouble().is_some())
            && let Some(kept) = stored.take()
        {
            let confirmed = kept.confirmed;
            match keeper.restore(kept, now) {
                Ok(None) => {}
                // What is too old is withheld below, and told of there.
                Ok(Some(_))
                    if part
                        .as_ref()
                        .is_some_and(|part| part.judge(confirmed).is_err()) => {}
                Ok(Some(identity)) => {
                    let (id, at) = (&identity.id, written(confirmed));
                    tracing::warn!(%id, confirmed = %at, "the mesh identity is from the disk");
                }
                Err(why) => {
                    tracing::error!("{why}");
                    keeper.refused = Some(why);
                }
            }
        }
        let kept = part.as_ref().zip(keeper.restored);
        let age = kept.map_or(Ok(()), |(part, confirmed)| part.judge(confirmed));
        let is_young = age.is_ok();
        keeper.judge(age, now);
        let serving = keeper.serving().cloned();
        let is_told = match (&serving, &told_identity) {
            (Some(serving), Some(told)) => Arc::ptr_eq(serving, told),
            (serving, told) => serving.is_none() && told.is_none(),
        };
        if !is_told {
            if let Some(why) = &keeper.withheld {
                tracing::error!("the mesh identity from the disk serves no longer: {why}");
            }
            told_identity.clone_from(&serving);
            if changes.send(Change::Identity(serving)).await.is_err() {
                return;
            }
        }
        if let (Some(part), Some((trust, leaf))) = (&part, keeper.confirmed()) {
            stored::confirm(part, &keeper.service, trust, leaf);
        }
        let restored = keeper.restored.filter(|_| keeper.withheld.is_none());
        if std::mem::replace(&mut told_restored, restored) != restored {
            let change = Change::Restored(PART.into(), restored);
            if changes.send(change).await.is_err() {
                return;
            }
        }
        let is_refused = keeper.is_refused();
        if std::mem::replace(&mut told_refused, is_refused) != is_refused {
            let change = Change::Refused(PART.into(), is_refused);
            if changes.send(change).await.is_err() {
                return;
            }
        }
        let state = keeper.state(now);
        if told.as_ref() != Some(&state) {
            match &state {
                // What has only begun is no trouble.
                State::NotReady(_) if keeper.trouble().is_none() => {}
                State::Ready | State::Noted(_) => tracing::info!("the mesh identity is ready"),
                State::Degraded(why) | State::NotReady(why) => tracing::warn!("{why}"),
            }
            if changes
                .send(Change::State(PART.into(), state.clone()))
                .await
                .is_err()
            {
                return;
            }
            told = Some(state);
        }
        let pause = keeper
            .next_change(now)
            .map_or(CLOCK, |left| left.min(CLOCK));
        let pause = match stored {
            Some(_) => pause.min(until.saturating_duration_since(Instant::now())),
            None => pause,
        };
        let kept = part.as_ref().zip(keeper.restored);
        let turned = async {
            match kept {
                Some((part, confirmed)) => part.turned(confirmed, is_young).await,
                None => future::pending().await,
            }
        };
        let heard = tokio::select! {
            heard = heard.recv() => heard,
            () = turned => continue,
            () = tokio::time::sleep(pause) => continue,
            () = changes.closed() => return,
            () = stop.cancelled() => return,
        };
        let Some(heard) = heard else { return };
        if let Some(identity) = keeper.hear(heard, SystemTime::now()) {
            let until = written(identity.not_after);
            tracing::info!(id = %identity.id, %until, "a new mesh identity");
            if let Some(former) = &identity.former {
                let until = written(former.not_after);
                tracing::warn!(former = %former.id, %until, "the mesh was made anew: services that Consul has not told of again may be in the former one");
            }
        }
    }
}

fn trust(answer: Result<Answer<Roots>, Error>) -> Result<Trust, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    trust_in(answer.value)
}

/// What is listed, be it by an answer or on the disk.
fn trust_in(listed: Roots) -> Result<Trust, String> {
    let Roots {
        trust_domain,
        roots,
    } = listed;
    if trust_domain.is_empty() {
        return Err("consul names no trust domain with them: is connect enabled?".to_owned());
    }
    let sources: Vec<String> = (0..roots.len())
        .map(|n| format!("Roots[{n}].RootCert"))
        .collect();
    let texts = sources.iter().zip(&roots);
    let (store, errors) = mesh::roots(texts.map(|(source, root)| PemText {
        source,
        text: &root.root_cert,
    }));
    if store.is_empty() {
        return Err(match errors.first() {
            Some(error) => format!("consul lists none that serves: {error}"),
            None => "consul lists none".to_owned(),
        });
    }
    for error in errors {
        tracing::warn!(%error, "a root of the mesh is passed over");
    }
    Ok(Trust {
        domain: escape(trust_domain),
        roots: Arc::new(store),
        text: roots.into_iter().map(|root| root.root_cert).collect(),
    })
}

fn own_leaf(
    answer: Result<Answer<Issued>, Error>,
    service: &str,
    namespace: Option<&str>,
) -> Result<Leaf, String> {
    let issued = match answer {
        Ok(answer) => answer.value,
        Err(error) if error.is_denied() => {
            return Err(format!(
                "{error}; the token needs service:write on `{service}`"
            ));
        }
        Err(error) => return Err(error.to_string()),
    };
    leaf_in(&issued, service, namespace)
}

/// What was issued, be it in an answer or on the disk.
fn leaf_in(issued: &Issued, service: &str, namespace: Option<&str>) -> Result<Leaf, String> {
    let chain = PemText {
        source: "CertPEM",
        text: &issued.certificates,
    };
    let key = PemText {
        source: "PrivateKeyPEM",
        text: issued.key.reveal(),
    };
    let leaf = Leaf::from_pem(chain, key).map_err(|error| error.to_string())?;
    if leaf.id.as_str() != issued.uri {
        let (id, uri) = (&leaf.id, escape(&issued.uri));
        return Err(format!("it is for {id}, and consul says for {uri}"));
    }
    if !leaf.id.is_service(service) {
        return Err(format!("it is for another service: {}", leaf.id));
    }
    if let Some(namespace) = namespace
        && leaf.id.namespace() != Some(namespace)
    {
        return Err(format!(
            "it is for a service of another namespace than `{namespace}`: {}",
            leaf.id
        ));
    }
    Ok(leaf)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
