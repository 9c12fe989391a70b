# Two services on Fargate (network mode awsvpc). "orders" is registered in a private DNS namespace with A records.
# "shop" finds its tasks with ecs_discovery.

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

variable "subnet_ids" {
  type        = list(string)
  description = "Subnets in at least two availability zones, with a way to the images (NAT gateway or VPC endpoints)."
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

variable "tls_secret_arn" {
  type        = string
  default     = ""
  description = "A secret in Secrets Manager with the JSON keys certificate, key and ca (PEM), issued by your private CA for orders.NAMESPACE. Without it, orders speaks plain HTTP."
}

data "aws_region" "here" {}

data "aws_partition" "here" {}

locals {
  tls = var.tls_secret_arn != ""
}

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

    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  # ECS takes a task out of DNS when its container health check fails.
  health_check_custom_config {
    failure_threshold = 1
  }
}

# Who may reach whom

resource "aws_security_group" "shop" {
  name_prefix = "shop-"
  description = "Tasks of shop"
  vpc_id      = var.vpc_id

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "orders" {
  name_prefix = "orders-"
  description = "Tasks of orders"
  vpc_id      = var.vpc_id

  ingress {
    description     = "From the tasks of shop, straight to the port of the container"
    from_port       = 8080
    to_port         = 8080
    protocol        = "tcp"
    security_groups = [aws_security_group.shop.id]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
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

resource "aws_iam_role_policy" "certificate" {
  count = local.tls ? 1 : 0
  role  = aws_iam_role.execution.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = var.tls_secret_arn
    }]
  })
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

resource "aws_ecs_cluster" "this" {
  name = "discovery"
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
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution.arn

  container_definitions = jsonencode([{
    name         = "orders"
    image        = var.orders_image
    essential    = true
    portMappings = [{ containerPort = 8080 }]
    stopTimeout  = 40 # Seconds from SIGTERM to SIGKILL: 15 in which DNS forgets the task, and 25 for requests.
    healthCheck = {
      command     = ["CMD-SHELL", "python -c \"import socket; socket.create_connection(('127.0.0.1', 8080), 2).close()\""]
      interval    = 5
      timeout     = 3
      retries     = 2
      startPeriod = 10
    }
    command = ["python", "-c", file("${path.module}/../../server.py")]
    secrets = local.tls ? [
      { name = "CERTIFICATE", valueFrom = "${var.tls_secret_arn}:certificate::" },
      { name = "KEY", valueFrom = "${var.tls_secret_arn}:key::" },
    ] : []
    logConfiguration = local.logs
  }])
}

resource "aws_ecs_service" "orders" {
  name                               = "orders"
  cluster                            = aws_ecs_cluster.this.id
  launch_type                        = "FARGATE"
  task_definition                    = aws_ecs_task_definition.orders.arn
  desired_count                      = 3
  deployment_minimum_healthy_percent = 100 # New tasks first: at no time is the name without an address.
  deployment_maximum_percent         = 200

  service_registries {
    registry_arn = aws_service_discovery_service.orders.arn
  }

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.orders.id]
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # Tasks start when their roles have the permissions, and end before the permissions go.
  depends_on = [aws_iam_role_policy_attachment.execution, aws_iam_role_policy.certificate]
}

# The service that calls

resource "aws_ecs_task_definition" "shop" {
  family                   = "shop"
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.shop.arn

  container_definitions = jsonencode([{
    name            = "shop"
    image           = var.shop_image
    essential       = true
    linuxParameters = { initProcessEnabled = true } # Passes SIGTERM on, and reaps what ECS Exec leaves behind.
    environment = [
      { name = "ECS_DISCOVERY_NAMESPACE", value = var.namespace },
      { name = "ECS_DISCOVERY_INSPECT", value = "1" }, # For `ecs-discovery watch`.
      { name = "ORDERS_URL", value = local.tls ? "https://orders.${var.namespace}:8080" : "http://orders:8080" },
    ]
    # PEM text: write it to a file, and pass the file as `verify`.
    secrets          = local.tls ? [{ name = "ORDERS_CA", valueFrom = "${var.tls_secret_arn}:ca::" }] : []
    logConfiguration = local.logs
  }])
}

resource "aws_ecs_service" "shop" {
  name                   = "shop"
  cluster                = aws_ecs_cluster.this.id
  launch_type            = "FARGATE"
  task_definition        = aws_ecs_task_definition.shop.arn
  desired_count          = 2
  enable_execute_command = true

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.shop.id]
  }

  # Tasks start when their roles have the permissions, and end before the permissions go.
  depends_on = [aws_iam_role_policy_attachment.execution, aws_iam_role_policy.certificate, aws_iam_role_policy.exec]
}

output "doctor" {
  description = "Look at the service from within a task of shop. Put in the id of a task."
  value       = "aws ecs execute-command --cluster ${aws_ecs_cluster.this.name} --container shop --interactive --command 'ecs-discovery doctor orders:8080' --task TASK"
}
