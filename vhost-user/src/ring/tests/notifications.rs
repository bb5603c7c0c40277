use super::*;

#[test]
fn a_driver_that_polls_is_not_called_and_one_that_sleeps_is() {
    for features in KINDS {
        let mut bed = bed(16, features);
        bed.queue.needs_call();
        bed.driver.disable_calls();
        for token in 0..100 {
            bed.offer(token);
            bed.driver.publish();
            assert_eq!(bed.use_all(), 1);
            assert!(!bed.queue.needs_call(), "{features:#x}");
            bed.driver.collect().unwrap();
        }
        assert!(!bed.driver.enable_calls());
        for token in 0..3 {
            bed.offer(token);
        }
        bed.driver.publish();
        assert!(!bed.queue.needs_call(), "nothing is used yet");
        assert_eq!(bed.use_all(), 3);
        assert!(bed.queue.needs_call(), "{features:#x}: the first of three was waited for");
    }
}

#[test]
fn the_first_chain_of_a_new_device_is_called_for() {
    for features in KINDS {
        let mut bed = bed(16, features);
        assert!(!bed.driver.enable_calls());
        bed.offer(0);
        bed.driver.publish();
        bed.use_all();
        assert!(bed.queue.needs_call(), "{features:#x}");
    }
}

#[test]
fn a_device_that_polls_is_not_kicked_and_one_that_sleeps_is() {
    for features in KINDS {
        let mut bed = bed(16, features);
        bed.queue.disable_kicks();
        // With the event index of a split ring, a driver can't be told to leave it.
        if features != F_EVENT_IDX {
            bed.offer(0);
            assert!(!bed.driver.publish(), "{features:#x}");
            assert!(bed.queue.enable_kicks().unwrap(), "a chain is there already");
            bed.use_all();
            bed.driver.collect().unwrap();
        }
        assert!(!bed.queue.enable_kicks().unwrap());
        assert!(!bed.driver.publish(), "nothing was added");
        bed.offer(1);
        assert!(bed.driver.publish(), "{features:#x}");
        if features & F_EVENT_IDX != 0 {
            bed.offer(2);
            assert!(!bed.driver.publish(), "one kick was asked for");
        }
    }
}
