//! Where a connection of a route goes: to the upstream that the route names, or to one of those that it stands for.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::upstream::{Transport, Upstream};
use super::{Route, Snapshot};

/// One of the upstreams that a weighted one stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// An upstream by its name in the snapshot, where there may be none.
    pub upstream: Arc<str>,
    /// Its share among the members; 0 is never chosen.
    pub weight: u32,
}

impl Snapshot {
    /// Where a route's bytes go, or why they go nowhere: nothing weaker than what it asks for takes its place. A weighted
    /// upstream serves while one of its members can.
    pub fn way(&self, route: &Route) -> Result<&Arc<Upstream>, Cow<'_, str>> {
        self.way_to(&route.upstream, route.mesh)
    }

    /// The same for whatever leads to an upstream of this name, which must be one of the mesh if that is asked for.
    ///
    /// # Errors
    /// Why nothing goes there.
    pub fn way_to<'a>(&'a self, name: &str, mesh: bool) -> Result<&'a Arc<Upstream>, Cow<'a, str>> {
        let upstream = self.sound(name, mesh)?;
        if upstream.members.is_empty() {
            return Ok(upstream);
        }
        let mut reasons = Vec::new();
        for member in upstream.members.iter().filter(|member| member.weight > 0) {
            match self.sound(&member.upstream, mesh) {
                Ok(_) => return Ok(upstream),
                Err(why) => reasons.push(format!("`{}`: {why}", member.upstream)),
            }
        }
        Err(format!("no member of it serves: {}", reasons.join("; ")).into())
    }

    /// The upstream for one connection that begins to dial now: the route's own or, of a weighted one, the member whose
    /// turn it is.
    ///
    /// Weighted round robin, as [among endpoints](Upstream::turn): among the members that have an endpoint which is not
    /// passed over; if none has, among those that have any; if none has, among those that may have some again.
    pub fn choose(&self, route: &Route, now: Instant) -> Result<&Arc<Upstream>, Cow<'_, str>> {
        self.choose_of(&route.upstream, route.mesh, now)
    }

    /// The same for whatever leads to an upstream of this name, as for [`way_to`](Self::way_to).
    pub fn choose_of<'a>(
        &'a self,
        name: &str,
        mesh: bool,
        now: Instant,
    ) -> Result<&'a Arc<Upstream>, Cow<'a, str>> {
        let upstream = self.way_to(name, mesh)?;
        if upstream.members.is_empty() {
            return Ok(upstream);
        }
        let members = upstream.members.iter();
        let sound: Vec<(u64, &Arc<Upstream>)> = members
            .filter_map(|member| {
                let found = self.sound(&member.upstream, mesh).ok()?;
                Some((u64::from(member.weight), found))
            })
            .collect();
        let among = |fits: &dyn Fn(&Upstream) -> bool| {
            let sound = sound.iter().enumerate();
            let fitting = sound.filter(|(_, (_, member))| fits(member));
            upstream
                .state
                .first(fitting.map(|(place, (weight, _))| (place, *weight)))
        };
        let place = among(&|member| member.is_open(now))
            .or_else(|| among(&Upstream::has_endpoint))
            .or_else(|| among(&|_| true));
        place
            .and_then(|place| sound.get(place))
            .map(|(_, member)| *member)
            .ok_or(Cow::Borrowed("no member of it serves"))
    }

    /// Why a member of an upstream is passed over just now, if it is, by a route that is for the `mesh` alone, or by another.
    pub fn passes_over(&self, member: &Member, mesh: bool, now: Instant) -> Option<Cow<'_, str>> {
        match self.sound(&member.upstream, mesh) {
            Err(why) => Some(why.into()),
            Ok(upstream) if !upstream.has_endpoint() => {
                let why = upstream.empty.as_deref();
                Some(why.unwrap_or("it has no endpoint to dial").into())
            }
            Ok(upstream) if !upstream.is_open(now) => {
                Some("every endpoint of it is passed over".into())
            }
            Ok(_) => None,
        }
    }

    /// An upstream that such a route may lead to, if what dials it could be made.
    fn sound<'a>(&'a self, name: &str, mesh: bool) -> Result<&'a Arc<Upstream>, &'a str> {
        let upstream = self.upstream(name);
        let upstream = upstream.ok_or("its upstream does not exist")?;
        match &upstream.transport {
            Transport::Broken(why) => Err(why),
            Transport::Plain | Transport::Tls(_)
                if mesh && upstream.members.is_empty() && !upstream.is_mesh() =>
            {
                Err("its service asks for the mesh, and its upstream is not in it")
            }
            Transport::Plain | Transport::Tls(_) => Ok(upstream),
        }
    }
}
