"""The 131 agents of a first start, as data: 36 opus, 59 sonnet, 36 default, over the strategy's fifteen use cases.

Rule: names and use cases are the strategy's where it gives one (strategy.md, 1); an agent's slug is its name. Task
types with sampling of their own are `code_generation`, `creative_writing` and `analysis` (core/generation.py).
Must not know: the database.
"""

from dataclasses import dataclass
from typing import NamedTuple

from optimizer.core.tiers import DEFAULT, OPUS, SONNET


class AgentSeed(NamedTuple):
    name: str
    task_type: str
    expertise_level: float  # 0..1
    description: str


@dataclass(frozen=True, slots=True)
class UseCase:
    tier: str
    name: str
    agents: tuple[AgentSeed, ...]


def _use_case(tier: str, name: str, *rows: tuple[str, str, float, str]) -> UseCase:
    return UseCase(tier, name, tuple(AgentSeed(*row) for row in rows))


# fmt: off
USE_CASES: tuple[UseCase, ...] = (
    # --- opus: deepseek-r1:8b, complex reasoning ------------------------------------------------------------------
    _use_case(
        OPUS, "System architecture design",
        ("System Architect", "analysis", 0.95, "Designs whole systems and weighs their trade-offs."),
        ("Distributed Systems Architect", "analysis", 0.95, "Plans consistency, partitioning and failover."),
        ("Data Architect", "analysis", 0.9, "Models data, its flow and its lifetime."),
        ("API Architect", "analysis", 0.85, "Shapes interfaces that can grow without breaking callers."),
        ("Cloud Architect", "analysis", 0.9, "Maps workloads onto cloud services and their costs."),
        ("Event Architect", "analysis", 0.85, "Designs event-driven systems and their guarantees."),
        ("Legacy Modernisation Architect", "planning", 0.9, "Plans how an old system is replaced in safe steps."),
    ),
    _use_case(
        OPUS, "Complex problem solving",
        ("Problem Solver", "reasoning", 0.9, "Takes an ill-defined problem apart and solves it."),
        ("Root Cause Analyst", "analysis", 0.9, "Traces a failure back to what really caused it."),
        ("Optimisation Strategist", "reasoning", 0.95, "Formulates and solves scheduling and allocation problems."),
        ("Mathematical Reasoner", "reasoning", 1.0, "Proves, derives and checks mathematical statements."),
        ("Strategic Planner", "planning", 0.85, "Turns a goal into a plan with milestones and risks."),
        ("Decision Analyst", "analysis", 0.85, "Compares options under uncertainty and recommends one."),
        ("Constraint Solver", "reasoning", 0.9, "Finds solutions that satisfy many rules at once."),
    ),
    _use_case(
        OPUS, "Deep learning tasks",
        ("Neural Network Designer", "analysis", 0.95, "Chooses and adapts network architectures."),
        ("Training Strategist", "planning", 0.9, "Plans training runs, schedules and data mixes."),
        ("Hyperparameter Advisor", "analysis", 0.85, "Suggests which hyperparameters to try next and why."),
        ("Model Evaluator", "analysis", 0.9, "Designs evaluations and reads their results critically."),
        ("Computer Vision Specialist", "analysis", 0.9, "Advises on image and video models."),
        ("Language Model Specialist", "analysis", 0.95, "Advises on tuning, prompting and serving models."),
        ("Reinforcement Learning Specialist", "reasoning", 0.95, "Designs rewards, environments and policies."),
    ),
    _use_case(
        OPUS, "Ethical reasoning",
        ("Ethics Advisor", "reasoning", 0.9, "Weighs an action's effects on everyone it touches."),
        ("Bias Auditor", "analysis", 0.85, "Looks for unfair treatment in data and decisions."),
        ("Privacy Ethicist", "reasoning", 0.85, "Judges what may be collected, kept and shared."),
        ("AI Safety Reviewer", "analysis", 0.95, "Reviews automated behaviour for possible harm."),
        ("Policy Interpreter", "reasoning", 0.85, "Explains what a policy means in a concrete case."),
        ("Fairness Mediator", "reasoning", 0.8, "Finds settlements that all sides can accept."),
        ("Responsible Release Reviewer", "analysis", 0.85, "Checks a release for misuse and asks what could go wrong."),
    ),
    _use_case(
        OPUS, "Scientific research",
        ("Research Lead", "planning", 0.95, "Frames research questions and plans how to answer them."),
        ("Literature Reviewer", "analysis", 0.85, "Compares published findings and finds the gaps."),
        ("Hypothesis Generator", "creative_writing", 0.9, "Proposes testable explanations of what was observed."),
        ("Experiment Designer", "planning", 0.9, "Designs experiments with controls and enough power."),
        ("Statistical Analyst", "analysis", 0.95, "Chooses the right test and interprets its outcome."),
        ("Peer Reviewer", "analysis", 0.9, "Examines manuscripts for flaws in method and claim."),
        ("Simulation Scientist", "reasoning", 0.9, "Builds and questions models of real systems."),
        ("Science Writer", "creative_writing", 0.8, "Explains research faithfully to people outside the field."),
    ),
    # --- sonnet: qwen2.5-coder:7b, balanced performance -----------------------------------------------------------
    _use_case(
        SONNET, "Code generation",
        ("Python Developer", "code_generation", 0.7, "Writes and changes Python code."),
        ("TypeScript Developer", "code_generation", 0.7, "Writes and changes TypeScript code."),
        ("Go Developer", "code_generation", 0.7, "Writes and changes Go code."),
        ("Rust Developer", "code_generation", 0.75, "Writes and changes Rust code."),
        ("SQL Developer", "code_generation", 0.65, "Writes queries, migrations and indexes."),
        ("Shell Scripter", "code_generation", 0.55, "Writes portable shell scripts that fail safely."),
        ("Frontend Developer", "code_generation", 0.65, "Builds pages and components that work for everyone."),
        ("Backend Developer", "code_generation", 0.7, "Builds services, endpoints and background jobs."),
        ("Test Writer", "code_generation", 0.65, "Writes tests that pin behaviour, not implementation."),
        ("Code Reviewer", "analysis", 0.75, "Reviews changes for faults, clarity and fit."),
        ("Refactoring Assistant", "code_generation", 0.7, "Improves structure without changing behaviour."),
        ("Debugger", "analysis", 0.75, "Finds the line that causes a fault and proposes the fix."),
    ),
    _use_case(
        SONNET, "System integration",
        ("Integration Engineer", "code_generation", 0.7, "Connects two systems that were not made for each other."),
        ("API Client Builder", "code_generation", 0.65, "Writes clients from API descriptions."),
        ("Webhook Engineer", "code_generation", 0.6, "Builds receivers that survive repeats and disorder."),
        ("Data Pipeline Engineer", "code_generation", 0.7, "Moves data between stores, complete and in order."),
        ("Schema Mapper", "code_generation", 0.6, "Maps one system's fields onto another's."),
        ("Message Queue Engineer", "code_generation", 0.7, "Sets up queues, topics and consumers."),
        ("Protocol Translator", "code_generation", 0.7, "Converts between wire formats and protocols."),
        ("Identity Integrator", "code_generation", 0.7, "Connects sign-in, directories and permissions."),
        ("Payment Integrator", "code_generation", 0.7, "Connects payment providers and reconciles their reports."),
        ("Database Migrator", "code_generation", 0.75, "Moves data between databases without losing a row."),
        ("Compatibility Tester", "analysis", 0.6, "Checks that versions of connected systems still agree."),
        ("Service Mesh Engineer", "code_generation", 0.7, "Configures routing, retries and timeouts between services."),
    ),
    _use_case(
        SONNET, "Deployment automation",
        ("Pipeline Engineer", "code_generation", 0.65, "Writes build and delivery pipelines."),
        ("Container Engineer", "code_generation", 0.65, "Writes small, safe container images."),
        ("Kubernetes Engineer", "code_generation", 0.7, "Writes manifests and explains why pods do not start."),
        ("Infrastructure Coder", "code_generation", 0.7, "Describes infrastructure as code."),
        ("Release Manager", "planning", 0.6, "Plans releases, their order and their way back."),
        ("Rollback Engineer", "code_generation", 0.65, "Prepares and tests the way back from a release."),
        ("Configuration Engineer", "code_generation", 0.6, "Keeps configuration consistent across environments."),
        ("Environment Builder", "code_generation", 0.6, "Sets up test and staging environments."),
        ("Package Maintainer", "code_generation", 0.6, "Builds, versions and publishes packages."),
        ("Deployment Verifier", "analysis", 0.55, "Decides from logs and checks whether a deployment is good."),
        ("Cost Optimiser", "analysis", 0.65, "Finds resources that cost more than they give."),
        ("Capacity Planner", "analysis", 0.7, "Predicts what load needs which capacity."),
    ),
    _use_case(
        SONNET, "Security analysis",
        ("Security Analyst", "analysis", 0.75, "Assesses systems for weaknesses and ranks them."),
        ("Vulnerability Triager", "analysis", 0.7, "Judges which reported vulnerabilities matter here."),
        ("Threat Modeller", "analysis", 0.8, "Asks what an attacker would want and how they would get it."),
        ("Secure Code Reviewer", "analysis", 0.75, "Reads code for injection, leaks and missing checks."),
        ("Dependency Auditor", "analysis", 0.6, "Checks dependencies for known faults and licences."),
        ("Access Reviewer", "analysis", 0.6, "Finds permissions that nobody needs."),
        ("Incident Responder", "planning", 0.75, "Guides the steps of containing and ending an incident."),
        ("Log Investigator", "analysis", 0.65, "Reconstructs from logs what happened."),
        ("Secrets Auditor", "analysis", 0.6, "Finds credentials in places where they should not be."),
        ("Compliance Checker", "analysis", 0.65, "Compares a system with the rules it must meet."),
        ("Network Security Reviewer", "analysis", 0.7, "Reviews firewall rules, exposure and segmentation."),
        ("Security Test Writer", "code_generation", 0.7, "Writes tests that try what an attacker would."),
    ),
    _use_case(
        SONNET, "Knowledge management",
        ("Documentation Writer", "creative_writing", 0.55, "Writes guides and references people can follow."),
        ("Knowledge Curator", "analysis", 0.6, "Merges, retires and links articles of a knowledge base."),
        ("Meeting Summariser", "summarisation", 0.5, "Turns a transcript into decisions and tasks."),
        ("Question Answerer", "question_answering", 0.55, "Answers from given documents and names its sources."),
        ("Onboarding Guide", "question_answering", 0.5, "Explains a project to someone new to it."),
        ("Glossary Keeper", "extraction", 0.5, "Collects terms and keeps one meaning for each."),
        ("Ontology Modeller", "analysis", 0.7, "Structures a field into concepts and relations."),
        ("Technical Translator", "creative_writing", 0.6, "Translates technical texts without changing their meaning."),
        ("Change Historian", "summarisation", 0.5, "Writes release notes from commits and tickets."),
        ("Lessons Learned Writer", "summarisation", 0.6, "Writes blameless reviews of what went wrong."),
        ("Search Assistant", "question_answering", 0.5, "Turns a vague need into precise searches."),
    ),
    # --- default: tinyllama, high efficiency ----------------------------------------------------------------------
    _use_case(
        DEFAULT, "Monitoring tasks",
        ("Health Monitor", "classification", 0.2, "Says whether a status report is healthy."),
        ("Log Watcher", "classification", 0.25, "Labels log lines by severity."),
        ("Alert Triager", "classification", 0.3, "Sorts alerts into act now, later and ignore."),
        ("Uptime Reporter", "summarisation", 0.2, "Puts availability figures into one sentence."),
        ("Metric Annotator", "classification", 0.25, "Names what a change in a metric looks like."),
        ("Queue Watcher", "classification", 0.2, "Notices queues that grow without draining."),
        ("Disk Watcher", "classification", 0.15, "Warns of volumes that will be full soon."),
    ),
    _use_case(
        DEFAULT, "Simple automation",
        ("Ticket Router", "classification", 0.25, "Sends a ticket to the team that can answer it."),
        ("Mail Sorter", "classification", 0.2, "Files messages under the right heading."),
        ("Reminder Writer", "formatting", 0.15, "Writes short, polite reminders."),
        ("Schedule Helper", "extraction", 0.25, "Reads dates and times out of messages."),
        ("File Namer", "formatting", 0.1, "Names files by one rule."),
        ("Command Suggester", "formatting", 0.3, "Suggests one command for a small job."),
        ("Form Filler", "extraction", 0.2, "Fills a form's fields from a text."),
    ),
    _use_case(
        DEFAULT, "Data collection",
        ("Field Extractor", "extraction", 0.25, "Pulls named fields out of a text."),
        ("Contact Extractor", "extraction", 0.2, "Finds names, addresses and numbers in a text."),
        ("Survey Collector", "extraction", 0.2, "Turns free answers into the survey's categories."),
        ("Feed Reader", "summarisation", 0.2, "Gives the gist of each item in a feed."),
        ("Receipt Reader", "extraction", 0.2, "Reads date, amount and shop off a receipt's text."),
        ("Tag Collector", "classification", 0.2, "Gives texts tags from a fixed list."),
        ("Inventory Reader", "extraction", 0.2, "Lists items and amounts that a text mentions."),
    ),
    _use_case(
        DEFAULT, "Basic validation",
        ("Format Validator", "validation", 0.15, "Says whether a value has the expected format."),
        ("Input Checker", "validation", 0.2, "Finds missing or contradictory entries."),
        ("Spelling Checker", "validation", 0.2, "Points out misspelt words."),
        ("Link Checker", "validation", 0.15, "Judges whether a link's text fits its target."),
        ("Duplicate Finder", "validation", 0.25, "Says whether two entries mean the same thing."),
        ("Unit Checker", "validation", 0.25, "Checks that quantities carry the right units."),
        ("Tone Checker", "classification", 0.3, "Says whether a message is polite."),
    ),
    _use_case(
        DEFAULT, "Utility functions",
        ("Text Shortener", "summarisation", 0.2, "Shortens a text to a given length."),
        ("Title Writer", "creative_writing", 0.25, "Finds a short title for a text."),
        ("Language Detector", "classification", 0.15, "Names the language of a text."),
        ("Sentiment Tagger", "classification", 0.2, "Labels a text as positive, neutral or negative."),
        ("List Formatter", "formatting", 0.1, "Turns prose into a list."),
        ("Date Normaliser", "formatting", 0.15, "Writes dates in ISO 8601."),
        ("Keyword Picker", "extraction", 0.2, "Picks the key words of a text."),
        ("Greeting Writer", "creative_writing", 0.1, "Writes a short greeting for an occasion."),
    ),
)
# fmt: on
