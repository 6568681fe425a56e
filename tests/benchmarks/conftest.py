"""What is timed runs alone: one process, whatever the settings of the other tests say."""


def pytest_xdist_auto_num_workers(config):
    config.option.dist = "no"
    return 0
