//! Services of a mesh that was made anew: reached as before until their source speaks of them again.

use super::services::{Desk, identity_in, in_mesh, upstream, usual};
use super::*;
use crate::snapshot::service::{Service, ServiceUpstream};
use crate::snapshot::upstream::{Transport, UpstreamTls};
use crate::tls::mesh::Identity;

fn web() -> Service {
    let mut web = usual("web", "10.0.1.1:80");
    web.upstreams[0] = ServiceUpstream {
        mesh: in_mesh("web"),
        ..upstream("web@consul", &["10.0.1.1:80"])
    };
    web
}

impl Desk {
    fn learn_identity(&mut self, identity: &Arc<Identity>) -> UpstreamTls {
        self.inputs.identity = Some(Arc::clone(identity));
        self.compile();
        self.tls()
    }

    fn tls(&self) -> UpstreamTls {
        match &self.upstream("web@consul").transport {
            Transport::Tls(tls) => tls.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_service_may_be_in_the_former_mesh_until_its_source_speaks_of_it_again() {
    let mut desk = Desk::new(inputs(""));
    desk.learn([web()]);
    let former = identity_in("one.test", None);
    assert!(desk.learn_identity(&former).former.is_none());

    let current = identity_in("two.test", Some(&former));
    let tls = desk.learn_identity(&current);
    let id = "spiffe://two.test/ns/default/dc/dc1/svc/web";
    assert_eq!(tls.spiffe.as_ref().unwrap().as_str(), id);
    assert!(Arc::ptr_eq(tls.former.as_ref().unwrap(), &former));
    let renewed = identity_in("two.test", Some(&former));
    let tls = desk.learn_identity(&renewed);
    assert!(
        tls.former.is_some(),
        "a new leaf changes nothing about that"
    );
    desk.compile();
    assert!(
        Arc::ptr_eq(&desk.tls().config, &tls.config),
        "nor does nothing"
    );

    desk.learn([web()]);
    assert!(desk.tls().former.is_none());
    assert!(desk.learn_identity(&current).former.is_none(), "it is over");
}

#[test]
fn a_service_that_was_never_reached_in_the_former_mesh_is_asked_for_this_one() {
    let mut desk = Desk::new(inputs(""));
    let former = identity_in("one.test", None);
    desk.inputs.identity = Some(identity_in("two.test", Some(&former)));
    desk.learn([web()]);
    assert!(desk.tls().former.is_none());
    desk.compile();
    assert!(desk.tls().former.is_none());
}
