FROM registry.example.com/base/entry:1
CMD []
