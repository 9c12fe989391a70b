# Two services on Fargate in an HTTP namespace, which has no DNS. "orders" is registered there by Service Connect, and
# may have callers with Service Connect too. "shop" has no proxy: ecs_discovery asks the API of Cloud Map.

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
  description = "The VPC."
}

variable "subnet_ids" {
  type        = list(string)
  description = "Subnets in at least two availability zones, with a way to the images and to Cloud Map (NAT gateway, or VPC endpoints)."
}

variable "namespace" {
  type        = string
  default     = "prod"
  description = "The HTTP namespace. It is created here."
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

resource "aws_service_discovery_http_namespace" "this" {
  name = var.namespace
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

resource "aws_iam_role" "shop" {
  name_prefix        = "shop-"
  assume_role_policy = file("${path.module}/../../iam/tasks-assume.json")
}

# Cloud Map has no finer permission for these two calls than all services.
resource "aws_iam_role_policy" "discovery" {
  role   = aws_iam_role.shop.id
  policy = file("${path.module}/../../iam/cloud-map.json")
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
    portMappings = [{ name = "http", containerPort = 8080 }] # Service Connect names ports.
    stopTimeout  = 40                                        # Seconds from SIGTERM to SIGKILL: 15 in which callers learn of it, and 25 for requests.
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
  cluster                            = aws_ecs_cluster.this.id
  launch_type                        = "FARGATE"
  task_definition                    = aws_ecs_task_definition.orders.arn
  desired_count                      = 3
  deployment_minimum_healthy_percent = 100 # New tasks first: at no time is the name without an address.
  deployment_maximum_percent         = 200

  service_connect_configuration {
    enabled   = true
    namespace = aws_service_discovery_http_namespace.this.arn

    service {
      port_name      = "http"
      discovery_name = "orders" # The service's name in Cloud Map.

      # For callers with Service Connect.
      client_alias {
        dns_name = "orders"
        port     = 8080
      }
    }
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
  depends_on = [aws_iam_role_policy_attachment.execution]
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
      { name = "ECS_DISCOVERY_SERVICES", value = "orders=cloudmap://${var.namespace}/orders?port=8080" },
      { name = "ECS_DISCOVERY_INSPECT", value = "1" }, # For `ecs-discovery watch`.
      { name = "ORDERS_URL", value = "http://orders:8080" },
    ]
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
  depends_on = [aws_iam_role_policy_attachment.execution, aws_iam_role_policy.exec, aws_iam_role_policy.discovery]
}

output "doctor" {
  description = "Look at the service from within a task of shop. Put in the id of a task."
  value       = "aws ecs execute-command --cluster ${aws_ecs_cluster.this.name} --container shop --interactive --command 'ecs-discovery doctor orders:8080' --task TASK"
}
