FROM registry.example.com/base/onbuild:1
EXPOSE 80
