//! A gateway before an agent whose answers are bad, and what each bad answer must leave as it was.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::{ROUTE, Scene, register, register_with_own_sidecar};
use crate::consul::{Altered, Between, Consul, Fault};
use crate::program::Program;
use crate::upstream::Upstream;

/// In a second of a fault. Four questions wait for changes; each is asked a few times at once and then four times a second,
/// and two reads of each service are made at most once a second: that and a sixth.
const MOST_QUESTIONS: usize = 42;

/// A gateway that asks a real agent through what makes the faults.
pub(super) struct Faulty {
    pub(super) scene: Scene<Program>,
    pub(super) between: Between,
    /// Others may be before the same.
    pub(super) agent: Arc<Agent>,
}

/// An agent, and the service that a test has.
pub(super) struct Agent {
    pub(super) consul: Consul,
    pub(super) sidecar: Upstream,
}

/// A fault, and what the answers have that it is about.
#[derive(Clone, Copy)]
pub(super) struct Case {
    /// For the message of a test that fails.
    pub(super) what: &'static str,
    pub(super) paths: &'static [&'static str],
    pub(super) fault: Fault,
}

/// A case of answers that are others.
pub(super) fn altered(
    what: &'static str,
    paths: &'static [&'static str],
    alter: fn(&mut Altered),
) -> Case {
    Case {
        what,
        paths,
        fault: Fault::Altered(alter),
    }
}

impl Faulty {
    pub(super) async fn start() -> Option<Self> {
        Some(Self::before(&Agent::start().await?).await)
    }

    async fn before(agent: &Arc<Agent>) -> Self {
        let between = Between::before(&agent.consul).await;
        Self {
            scene: Scene::start_apart(&between.keys, "").await,
            between,
            agent: Arc::clone(agent),
        }
    }

    /// A second of this fault: the route stands, connections and a tunnel go on, and no question is asked in haste.
    pub(super) async fn stands(&self, case: Case) {
        let Case { what, paths, fault } = case;
        let mut tunnel = self.scene.tunnel().await;
        let before = self.scene.route(ROUTE).await;
        self.between.fail(paths, fault);
        let questions = self.between.questions();
        let late = Instant::now() + Duration::from_secs(1);
        while Instant::now() < late {
            self.scene.works(what).await;
            sleep(Duration::from_millis(100)).await;
        }
        let questions = self.between.questions() - questions;
        let asked = || self.between.asked();
        assert!(
            questions <= MOST_QUESTIONS,
            "{what}: {questions}: {:?}",
            asked()
        );
        let after = self.scene.route(ROUTE).await;
        assert_eq!(after["endpoints"], before["endpoints"], "{what}");
        tunnel.lives().await;
    }

    /// The same, and this part says that something is wrong, while it is: everywhere that somebody looks.
    pub(super) async fn tells(&self, case: Case, part: &'static str) {
        self.stands(case).await;
        let told = self.scene.tells(part).await;
        println!("{}: {told}", case.what);
        let well = || {
            let mut lines = self.scene.logged("INFO").into_iter();
            let words = match part {
                "consul" => "consul answers, and nothing is in doubt",
                _ => "the mesh identity is ready",
            };
            lines
                .by_ref()
                .filter(|line| line["message"] == words)
                .count()
        };
        let before = well();
        self.between.heal();
        self.scene.is_ready().await;
        self.scene
            .until("the log says that it is over", async || well() > before)
            .await;
        self.scene.works(case.what).await;
    }

    /// Waits until a service that comes now has its route.
    pub(super) async fn hears_of(&self, name: &'static str) {
        let address = self.agent.sidecar.address;
        register(&self.agent.consul, name, address, address.port());
        let route = format!("{name}@consul");
        let is_there = async || !self.scene.route(&route).await.is_null();
        self.scene
            .until("a new service has its route", is_there)
            .await;
    }
}

impl Agent {
    async fn start() -> Option<Arc<Self>> {
        let consul = Consul::strict()?;
        let sidecar = register_with_own_sidecar(&consul).await;
        Some(Arc::new(Self { consul, sidecar }))
    }
}

/// Each case in a gateway of its own, side by side: it takes nothing away, and this part tells of it.
pub(super) async fn each_is_told<const N: usize>(part: &'static str, cases: [Case; N]) {
    let Some(agent) = Agent::start().await else {
        return;
    };
    let (side_by_side, mut running) = (LocalSet::new(), Vec::new());
    for case in cases {
        let agent = Arc::clone(&agent);
        running.push(side_by_side.spawn_local(async move {
            let faulty = Faulty::before(&agent).await;
            faulty.tells(case, part).await;
        }));
    }
    side_by_side.await;
    for done in running {
        done.await.unwrap();
    }
}
