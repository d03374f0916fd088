{{- define "reranker-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/*
The rights to a scope have the same name in every release: two operators with the same scope would
fight over each Deployment, so Helm must refuse the second one. */}}
{{- define "reranker-operator.scope" -}}
reranker-operator
{{- end -}}

{{- define "reranker-operator.selectorLabels" -}}
app.kubernetes.io/name: reranker-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "reranker-operator.labels" -}}
{{ include "reranker-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: reranker-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/*
Whether the cluster has a kind of the Prometheus operator. Tools that render for another cluster may
tell groups and versions alone; where kinds of the group are told, this one has to be among them. */}}
{{- define "reranker-operator.hasMonitoring" -}}
{{- $known := .root.Capabilities.APIVersions -}}
{{- $api := "monitoring.coreos.com/v1" -}}
{{- $kinds := false -}}
{{- range $known -}}
{{- if hasPrefix (printf "%s/" $api) . -}}{{- $kinds = true -}}{{- end -}}
{{- end -}}
{{- if or ($known.Has (printf "%s/%s" $api .kind)) (and ($known.Has $api) (not $kinds)) -}}
true
{{- end -}}
{{- end -}}

{{/* What the operator may do with the objects that live in a namespace. */}}
{{- define "reranker-operator.rules" -}}
- apiGroups: [reranker.dev]
  resources: [rerankerservices]
  verbs: [get, list, watch]
- apiGroups: [reranker.dev]
  resources: [rerankerengines]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [reranker.dev]
  resources: [rerankerservices/status, rerankerengines/status]
  verbs: [patch]
# A number of pods that its owner lets go of is put back for the next one.
- apiGroups: [reranker.dev]
  resources: [rerankerservices/scale]
  verbs: [patch]
# Owner references that block their owner's deletion need this where the API server checks them.
- apiGroups: [reranker.dev]
  resources: [rerankerservices/finalizers, rerankerengines/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Patched is one annotation, of those that should go first when there are to be fewer.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Beside the pods, where a spec asks for them. The kinds of the last two groups may be missing.
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
# Where a service without pods leads to, before its last pod goes.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
{{- range .Values.references.watch }}
# Only metadata is asked for; RBAC knows no such difference.
- apiGroups: [""]
  resources: [{{ lower . }}s]
  verbs: [get, list, watch]
{{- end }}
{{- end -}}
