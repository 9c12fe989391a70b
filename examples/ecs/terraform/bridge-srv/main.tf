# Two services on EC2 instances in network mode bridge: each task has a host port of its own, which SRV records tell.
# "shop" finds the tasks of "orders" with ecs_discovery.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "vpc_id" {
  type        = string
  description = "The VPC. Its attributes enableDnsSupport and enableDnsHostnames must be on."
}

variable "cluster" {
  type        = string
  description = "A cluster with container instances in that VPC."
}

variable "instance_security_group_id" {
  type        = string
  description = "The security group of the container instances."
}

variable "namespace" {
  type        = string
  default     = "prod.local"
  description = "The private DNS namespace. It is created here."
}

variable "orders_image" {
  type        = string
  default     = "public.ecr.aws/docker/library/python:3.13-slim"
  description = "An image with Python, for the small server below."
}

variable "shop_image" {
  type        = string
  description = "The image of your program, with ecs_discovery in it."
}

data "aws_region" "here" {}

data "aws_partition" "here" {}

# The name: orders.prod.local

resource "aws_service_discovery_private_dns_namespace" "this" {
  name = var.namespace
  vpc  = var.vpc_id
}

resource "aws_service_discovery_service" "orders" {
  name = "orders"

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this.id
    routing_policy = "MULTIVALUE" # Up to eight tasks in an answer. WEIGHTED gives one.

    # In network mode bridge, ECS registers SRV records alone.
    dns_records {
      type = "SRV"
      ttl  = 10
    }
  }

  # ECS takes a task out of DNS when its container health check fails.
  health_check_custom_config {
    failure_threshold = 1
  }
}

# Who may reach whom: the tasks have the addresses of their instances.

resource "aws_security_group_rule" "instances" {
  description              = "Between the instances, to the host ports that Docker gives to tasks"
  type                     = "ingress"
  security_group_id        = var.instance_security_group_id
  source_security_group_id = var.instance_security_group_id
  protocol                 = "tcp"
  from_port                = 32768
  to_port                  = 65535
}

# What the tasks may do

resource "aws_iam_role" "execution" {
  name_prefix        = "orders-execution-"
  assume_role_policy = file("${path.module}/../../iam/tasks-assume.json")
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.here.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

# DNS asks for no permission.
resource "aws_iam_role" "shop" {
  name_prefix        = "shop-"
  assume_role_policy = file("${path.module}/../../iam/tasks-assume.json")
}

# For `aws ecs execute-command … ecs-discovery doctor`.
resource "aws_iam_role_policy" "exec" {
  role   = aws_iam_role.shop.id
  policy = file("${path.module}/../../iam/exec.json")
}

resource "aws_cloudwatch_log_group" "this" {
  name_prefix       = "discovery-"
  retention_in_days = 14
}

locals {
  logs = {
    logDriver = "awslogs"
    options = {
      awslogs-group         = aws_cloudwatch_log_group.this.name
      awslogs-region        = data.aws_region.here.name
      awslogs-stream-prefix = "task"
    }
  }
}

# The service that is called

resource "aws_ecs_task_definition" "orders" {
  family                   = "orders"
  network_mode             = "bridge"
  requires_compatibilities = ["EC2"]
  execution_role_arn       = aws_iam_role.execution.arn

  container_definitions = jsonencode([{
    name         = "orders"
    image        = var.orders_image
    essential    = true
    cpu          = 128
    memory       = 256
    portMappings = [{ containerPort = 8080, hostPort = 0 }] # Any free port of the instance.
    stopTimeout  = 40                                       # Seconds from SIGTERM to SIGKILL: 15 in which DNS forgets the task, and 25 for requests.
    healthCheck = {
      command     = ["CMD-SHELL", "python -c \"import socket; socket.create_connection(('127.0.0.1', 8080), 2).close()\""]
      interval    = 5
      timeout     = 3
      retries     = 2
      startPeriod = 10
    }
    command          = ["python", "-c", file("${path.module}/../../server.py")]
    logConfiguration = local.logs
  }])
}

resource "aws_ecs_service" "orders" {
  name                               = "orders"
  cluster                            = var.cluster
  launch_type                        = "EC2"
  task_definition                    = aws_ecs_task_definition.orders.arn
  desired_count                      = 3
  deployment_minimum_healthy_percent = 100 # New tasks first: at no time is the name without an address.
  deployment_maximum_percent         = 200

  service_registries {
    registry_arn   = aws_service_discovery_service.orders.arn
    container_name = "orders" # Which port the SRV records tell.
    container_port = 8080
  }


  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # Tasks start when their roles have the permissions, and end before the permissions go.
  depends_on = [aws_iam_role_policy_attachment.execution]
}

# The service that calls

resource "aws_ecs_task_definition" "shop" {
  family                   = "shop"
  network_mode             = "bridge"
  requires_compatibilities = ["EC2"]
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.shop.arn

  container_definitions = jsonencode([{
    name            = "shop"
    image           = var.shop_image
    essential       = true
    cpu             = 128
    memory          = 256
    linuxParameters = { initProcessEnabled = true } # Passes SIGTERM on, and reaps what ECS Exec leaves behind.
    environment = [
      { name = "ECS_DISCOVERY_NAMESPACE", value = var.namespace },
      { name = "ECS_DISCOVERY_INSPECT", value = "1" },  # For `ecs-discovery watch`.
      { name = "ORDERS_URL", value = "http://orders" }, # Without a port: the SRV records tell the port of each task.
    ]
    logConfiguration = local.logs
  }])
}

resource "aws_ecs_service" "shop" {
  name                   = "shop"
  cluster                = var.cluster
  launch_type            = "EC2"
  task_definition        = aws_ecs_task_definition.shop.arn
  desired_count          = 2
  enable_execute_command = true


  # Tasks start when their roles have the permissions, and end before the permissions go.
  depends_on = [aws_iam_role_policy_attachment.execution, aws_iam_role_policy.exec]
}

output "doctor" {
  description = "Look at the service from within a task of shop. Put in the id of a task."
  value       = "aws ecs execute-command --cluster ${var.cluster} --container shop --interactive --command 'ecs-discovery doctor orders' --task TASK"
}
