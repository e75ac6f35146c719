//! Services.

use crate::go::{GoDuration, GoTime, Ratio, omit};
use crate::{Endpoint, EndpointSpec, NetworkAttachmentConfig, ObjectVersion, TaskSpec};
use std::collections::BTreeMap;

bodies! {
    /// A service.
    pub struct Service {
        /// Its id.
        "ID" id: String;
        /// Its version.
        "Version" version: ObjectVersion;
        /// When it was created.
        "CreatedAt" created_at: GoTime;
        /// When it was last changed.
        "UpdatedAt" updated_at: GoTime;
        /// What is wanted.
        "Spec" spec: ServiceSpec;
        /// What was wanted before; only after an update.
        "PreviousSpec" previous_spec: Option<ServiceSpec>, "omit";
        /// How it is reached.
        "Endpoint" endpoint: Endpoint;
        /// How its last update goes; only after an update.
        "UpdateStatus" update_status: Option<UpdateStatus>, "omit";
        /// How many tasks run; only when asked for.
        "ServiceStatus" service_status: Option<ServiceStatus>, "omit";
        /// How its job goes; only of a job.
        "JobStatus" job_status: Option<JobStatus>, "omit";
    }

    /// What is wanted of a service.
    pub struct ServiceSpec {
        /// Its name.
        "Name" name: String, "omit";
        /// User labels.
        "Labels" labels: BTreeMap<String, String>;
        /// What each task runs.
        "TaskTemplate" task_template: TaskSpec;
        /// How many.
        "Mode" mode: ServiceMode;
        /// How it is updated.
        "UpdateConfig" update_config: Option<UpdateConfig>, "omit";
        /// How an update is undone.
        "RollbackConfig" rollback_config: Option<UpdateConfig>, "omit";
        /// Networks, in the place where old clients name them.
        "Networks" networks: Vec<NetworkAttachmentConfig>, "omit";
        /// How it is reached.
        "EndpointSpec" endpoint_spec: Option<EndpointSpec>, "omit";
    }

    /// How many tasks a service has. At most one is given; none means one replica.
    pub struct ServiceMode {
        /// So many.
        "Replicated" replicated: Option<ReplicatedService>, "omit";
        /// One on each node.
        "Global" global: Option<GlobalService>, "omit";
        /// So many, until they are done.
        "ReplicatedJob" replicated_job: Option<ReplicatedJob>, "omit";
        /// One on each node, until it is done.
        "GlobalJob" global_job: Option<GlobalService>, "omit";
    }

    /// So many tasks.
    pub struct ReplicatedService {
        /// How many; 1 when not given.
        "Replicas" replicas: Option<u64>, "omit";
    }

    /// A task on each node.
    pub struct GlobalService {
    }

    /// So many tasks, until they are done.
    pub struct ReplicatedJob {
        /// At once.
        "MaxConcurrent" max_concurrent: Option<u64>, "omit";
        /// Altogether.
        "TotalCompletions" total_completions: Option<u64>, "omit";
    }

    /// How an update proceeds.
    pub struct UpdateConfig {
        /// Tasks at once; 0 for all.
        "Parallelism" parallelism: u64;
        /// Between two batches.
        "Delay" delay: GoDuration, "omit";
        /// `pause`, `continue` or `rollback`.
        "FailureAction" failure_action: String, "omit";
        /// How long a new task is watched for failure.
        "Monitor" monitor: GoDuration, "omit";
        /// Share of failures that is tolerated.
        "MaxFailureRatio" max_failure_ratio: Ratio;
        /// `stop-first` or `start-first`.
        "Order" order: String;
    }

    /// How an update goes.
    pub struct UpdateStatus {
        /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused` or `rollback_completed`.
        "State" state: String, "omit";
        /// When it started.
        "StartedAt" started_at: Option<GoTime>, "omit";
        /// When it ended.
        "CompletedAt" completed_at: Option<GoTime>, "omit";
        /// What happened, for people.
        "Message" message: String, "omit";
    }

    /// How many tasks of a service run.
    pub struct ServiceStatus {
        /// In state running.
        "RunningTasks" running_tasks: u64;
        /// That should run.
        "DesiredTasks" desired_tasks: u64;
        /// Of a job: done.
        "CompletedTasks" completed_tasks: u64;
    }

    /// How a job goes.
    pub struct JobStatus {
        /// Which run it is.
        "JobIteration" job_iteration: ObjectVersion;
        /// When it started.
        "LastExecution" last_execution: GoTime;
    }

    /// The reply to a creation.
    pub struct ServiceCreateResponse {
        /// The new service.
        "ID" id: String, "omit";
        /// Something the user should know.
        "Warnings" warnings: Option<Vec<String>>;
    }

    /// The reply to an update.
    pub struct ServiceUpdateResponse {
        /// Something the user should know.
        "Warnings" warnings: Option<Vec<String>>;
    }
}
