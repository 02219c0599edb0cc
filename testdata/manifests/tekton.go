package main

import (
	"context"
	"encoding/json"

	pipeline "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"github.com/tektoncd/triggers/pkg/apis/triggers/contexts"
	triggers "github.com/tektoncd/triggers/pkg/apis/triggers/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"knative.dev/pkg/apis"
	kjson "sigs.k8s.io/json"
)

// tektonObject is what Tekton's admission webhook has of each kind.
type tektonObject interface {
	metav1.Object
	apis.Defaultable
	apis.Validatable
}

var tekton = map[schema.GroupVersionKind]func() tektonObject{
	pipeline.SchemeGroupVersion.WithKind("Pipeline"):              func() tektonObject { return new(pipeline.Pipeline) },
	pipeline.SchemeGroupVersion.WithKind("PipelineRun"):           func() tektonObject { return new(pipeline.PipelineRun) },
	pipeline.SchemeGroupVersion.WithKind("Task"):                  func() tektonObject { return new(pipeline.Task) },
	pipeline.SchemeGroupVersion.WithKind("TaskRun"):               func() tektonObject { return new(pipeline.TaskRun) },
	triggers.SchemeGroupVersion.WithKind("ClusterTriggerBinding"): func() tektonObject { return new(triggers.ClusterTriggerBinding) },
	triggers.SchemeGroupVersion.WithKind("EventListener"):         func() tektonObject { return new(triggers.EventListener) },
	triggers.SchemeGroupVersion.WithKind("Trigger"):               func() tektonObject { return new(triggers.Trigger) },
	triggers.SchemeGroupVersion.WithKind("TriggerBinding"):        func() tektonObject { return new(triggers.TriggerBinding) },
	triggers.SchemeGroupVersion.WithKind("TriggerTemplate"):       func() tektonObject { return new(triggers.TriggerTemplate) },
}

// validateTekton does what Tekton's admission webhook does when an object is
// created.
func validateTekton(ctx context.Context, into tektonObject, object map[string]any) ([]error, error) {
	if errs := decodeStrict(object, into); len(errs) > 0 {
		return errs, nil
	}
	if into.GetName() == "" && into.GetGenerateName() != "" {
		into.SetName(into.GetGenerateName() + "x") // as the API server
	}
	ctx = contexts.WithUpgradeViaDefaulting(apis.WithinCreate(ctx))
	into.SetDefaults(ctx)
	if err := into.Validate(ctx); err != nil {
		return []error{err}, nil
	}
	return nil, nil
}

// decodeStrict decodes a value and returns what does not fit, unknown fields too.
func decodeStrict(value, into any) []error {
	text, err := json.Marshal(value)
	if err != nil {
		return []error{err}
	}
	errs, err := kjson.UnmarshalStrict(text, into)
	if err != nil {
		return []error{err}
	}
	return errs
}
