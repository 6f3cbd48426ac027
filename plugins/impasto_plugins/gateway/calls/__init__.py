"""Provider calls: deployments, arguments, budgets, queue time-outs, execution."""
