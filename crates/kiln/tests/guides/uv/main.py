import itsdangerous
print("uv works")
