//! The examples of SPP's API references, of 2018 to 2020, as written.

use kit::reference::{self, Answer};

use crate::rig::{Rig, process};

#[tokio::test]
async fn every_example_of_the_references_is_answered_as_printed() {
    for example in reference::examples() {
        for content_type in
            [None, Some("text/plain"), Some("application/json"), Some("application/x-www-form-urlencoded")]
        {
            // Captures of the same second would get each other's numbers in one directory.
            let dir = tempfile::tempdir().unwrap();
            let rig = Rig::configured(&format!("{}\n[spp]\ndirectory = {:?}\n", example.config(), dir.path()));
            for line in example.before {
                let (method, path, body) = reference::parts(line);
                let said = rig.call(method, path, body).await;
                assert!((200..300).contains(&said.status), "{}: {line}: {said:?}", example.name);
            }
            let before = rig.all().await;
            let (method, path, body) = reference::parts(example.request);
            let said = rig.with_type(content_type, method, path, body.as_bytes().to_vec()).await;
            example.check(said.status, &said.content_type, &said.text).unwrap();
            if matches!(example.answer, Answer::Refused(_)) {
                assert_eq!(rig.all().await, before, "{}", example.name);
            }
        }
    }
}

#[tokio::test]
async fn the_order_of_names_is_that_of_spp_ctl() {
    let rig = Rig::new(&process("vf", 1, &[1, 2]));
    let text = rig.call("GET", "/v1/vfs/1", "").await.text;
    let order = r#"{"client-id":1,"ports":["phy:0","phy:1"],"master-lcore":1,"components":[{"core":2,"type":"unuse"}],"classifier_table":[]}"#;
    assert_eq!(text, order);
}

#[tokio::test]
async fn the_cpus_of_this_machine_are_laid_out() {
    let layout = Rig::new("").get("/v1/cpu_layout").await;
    for socket in layout.as_array().unwrap() {
        assert!(socket["socket_id"].is_u64(), "{socket}");
        for core in socket["cores"].as_array().unwrap() {
            assert!(core["core_id"].is_u64() && !core["lcores"].as_array().unwrap().is_empty(), "{core}");
        }
    }
}
