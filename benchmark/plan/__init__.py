"""From words to plans: tasks, stages, configuration, lives and studies. Pure data, torch-free."""
