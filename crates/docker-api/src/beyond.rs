//! What Swarm never had, in Docker's style: why a task is not where it should be, what a change would do, and moves that
//! even out a swarm. All of it stands under `/swarmlite/`, or behind `?plan=1` on a route that changes something.

use crate::go::omit;
use std::collections::BTreeMap;

bodies! {
    /// `GET /swarmlite/services/{id}/why` and `GET /swarmlite/tasks/{id}/why`: what keeps a service, or a task, from being
    /// as it should be.
    pub struct Why {
        /// The service that the answer is about.
        "Service" service: WhyService;
        /// What holds for the service as a whole, a sentence each; the first is the one to show when there is room for one.
        "Lines" lines: Vec<String>;
        /// What its update waits for; empty when none is under way.
        "Update" update: String;
        /// The tasks that are not where they should be, and only those.
        "Tasks" tasks: Vec<WhyTask>;
    }

    /// The service that a [`Why`] is about.
    pub struct WhyService {
        /// Its id.
        "ID" id: String;
        /// Its name.
        "Name" name: String;
    }

    /// A task that is not where it should be.
    pub struct WhyTask {
        /// Its id.
        "ID" id: String;
        /// Its name, such as `web.3`.
        "Name" name: String;
        /// Which of the replicas it is; 0 for a task of a global service.
        "Slot" slot: u64;
        /// The node it is on; empty when it has none.
        "NodeID" node_id: String;
        /// The state it should reach.
        "DesiredState" desired_state: String;
        /// The state it is in.
        "State" state: String;
        /// Why, as one sentence.
        "Line" line: String;
        /// For a task without a node: each node that cannot have it.
        "Rejected" rejected: Vec<RejectedNode>;
    }

    /// A node that cannot have a task.
    pub struct RejectedNode {
        /// Its id.
        "NodeID" node_id: String;
        /// Its host name.
        "Hostname" hostname: String;
        /// Which of the scheduler's filters said no, such as `resources` or `constraint`.
        "Filter" filter: String;
        /// What it said, with the numbers: `512 MiB short of 1 GiB`.
        "Reason" reason: String;
    }

    /// What would come of a change that was not made: the answer to any change with `?plan=1`, and to
    /// `POST /swarmlite/simulate`.
    pub struct Forecast {
        /// Something would be different afterwards.
        "Changes" changes: bool;
        /// Changes of objects themselves, one text each: `node n1: availability active -> drain`.
        "Objects" objects: Vec<String>;
        /// What would happen to tasks, in order of time.
        "Steps" steps: Vec<ForecastStep>;
        /// The services that it would happen to.
        "Services" services: Vec<ForecastService>;
        /// Tasks that would find no place.
        "Unplaced" unplaced: Vec<ForecastUnplaced>;
        /// What would run where in the end.
        "Landing" landing: Vec<ForecastNode>;
        /// `settled`, `waiting`, or a text that says within what time nothing settled.
        "Ends" ends: String;
        /// What limits the forecast, a sentence each.
        "Notes" notes: Vec<String>;
    }

    /// One thing that would happen to a task.
    pub struct ForecastStep {
        /// When, in milliseconds after the change, as far as that can be known.
        "AtMs" at_ms: u64;
        /// `create`, `start`, `restart`, `move`, `stop`, `remove` or `update-status`.
        "Action" action: String;
        /// The service's name.
        "Service" service: String;
        /// Which of the replicas; 0 for a task of a global service.
        "Slot" slot: u64;
        /// The task's id; empty for one that does not exist yet.
        "Task" task: String;
        /// The node it leaves, by host name; empty when it leaves none.
        "FromNode" from_node: String;
        /// The node it comes to, by host name; empty when it comes to none.
        "ToNode" to_node: String;
        /// Why.
        "Why" why: String;
    }

    /// What a change would mean to a service.
    pub struct ForecastService {
        /// The service's name.
        "Service" service: String;
        /// Tasks it should have now.
        "WantedBefore" wanted_before: u64;
        /// Tasks it should have afterwards.
        "WantedAfter" wanted_after: u64;
        /// The fewest that would run at any time until all is settled.
        "LeastRunning" least_running: u64;
        /// For how many milliseconds fewer would run than are wanted.
        "DipMs" dip_ms: u64;
    }

    /// A task that would find no place.
    pub struct ForecastUnplaced {
        /// The service's name.
        "Service" service: String;
        /// Which of the replicas; 0 for a task of a global service.
        "Slot" slot: u64;
        /// Why no node can have it.
        "Reason" reason: String;
    }

    /// What would run on a node in the end.
    pub struct ForecastNode {
        /// Its id.
        "Node" node: String;
        /// Its host name.
        "Hostname" hostname: String;
        /// How many tasks of each service, by the service's name.
        "Tasks" tasks: BTreeMap<String, u64>;
    }

    /// `POST /swarmlite/simulate`: what if. Nothing is changed.
    pub struct SimulateRequest {
        /// Nodes that would be gone, by name or id.
        "Kill" kill: Vec<String>;
        /// Nodes that would be drained, by name or id.
        "Drain" drain: Vec<String>;
        /// Services that would have so many replicas, by name or id.
        "Scale" scale: BTreeMap<String, u64>;
    }

    /// `POST /swarmlite/rebalance`: move tasks to the nodes that have fewer, one at a time for each service.
    pub struct RebalanceRequest {
        /// The services, by name or id; none for all.
        "Services" services: Vec<String>, "omit";
    }
}
