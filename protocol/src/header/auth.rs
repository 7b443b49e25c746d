//! Users and access rules.

use crate::header;

header! {
    pub struct CreateAcl {
        pub subject: Option<String>,
    }
}

header! {
    pub struct CreateUser {
        pub username: Option<String>,
    }
}

header! {
    pub struct DeleteAcl {
        pub subject: Option<String>,
        pub policy_type: Option<String>,
        pub resource: Option<String>,
    }
}

header! {
    pub struct DeleteUser {
        pub username: Option<String>,
    }
}

header! {
    pub struct GetAcl {
        pub subject: Option<String>,
    }
}

header! {
    pub struct GetUser {
        pub username: Option<String>,
    }
}

header! {
    pub struct ListAcls {
        pub subject_filter: Option<String>,
        pub resource_filter: Option<String>,
    }
}

header! {
    pub struct ListUsers {
        pub filter: Option<String>,
    }
}

header! {
    pub struct UpdateAcl {
        pub subject: Option<String>,
    }
}

header! {
    pub struct UpdateUser {
        pub username: Option<String>,
    }
}
